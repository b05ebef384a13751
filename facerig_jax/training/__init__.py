"""Training the learned solver: losses over the whole trajectory, the update, checkpoints, the loop."""
