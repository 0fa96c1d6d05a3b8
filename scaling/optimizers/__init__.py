"""Optimizers that optax lacks, parameter groups, learning-rate schedules."""
