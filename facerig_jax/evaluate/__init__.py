"""How good a fit is: true vertex error and the protocols of the field."""
