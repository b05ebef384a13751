"""What made the assets that ship: the head, its landmark calibration, the detector's weights."""
