"""How good a fit is: alignment, surface distances and the protocols of the field."""
