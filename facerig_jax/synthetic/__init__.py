"""People drawn by ourselves, photographed: what training and evaluation look at."""
