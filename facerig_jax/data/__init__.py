"""What goes in: photos, video frames, subjects."""
