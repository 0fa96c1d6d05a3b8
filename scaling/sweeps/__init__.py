"""Grids, plans, executors and progress: what to train, in which packs, and what is left of it."""
