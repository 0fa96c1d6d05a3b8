"""Mixtures that learn while they train: pure functions on arrays, carried in the train state."""
