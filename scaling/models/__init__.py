"""Flax modules and their parts, parameter and FLOP counts."""
