"""Configurations: what to train."""
