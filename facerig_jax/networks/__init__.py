"""Networks: layers, what ships, and weights files."""
