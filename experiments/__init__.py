"""Command lines; run from a checkout as `python -m experiments.NAME`."""
