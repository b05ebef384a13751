"""Solvers of the rig: the classical one, its terms and its status."""
