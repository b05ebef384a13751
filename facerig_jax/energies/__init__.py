"""The method's energies: landmark, feature-metric and photometric, as pure functions."""
