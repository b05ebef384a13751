"""The product's solver: photos to a rig and every photo's pose, expression and light."""
