"""The loop, the optimiser, a run's folder."""
