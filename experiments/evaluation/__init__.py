"""The comparison of methods, run by experiments.evaluate: what is compared, on whom, and the tables and plots of it."""
