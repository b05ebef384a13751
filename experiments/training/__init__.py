"""Training networks: losses over the whole trajectory, the update, checkpoints, the loop."""
