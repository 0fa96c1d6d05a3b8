"""Scaling laws as data: formulas, inputs with units, parameters; one module a family."""
