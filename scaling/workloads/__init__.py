"""Small supervised workloads of the optimizer bench: their data, models, trials and pack trainer."""
