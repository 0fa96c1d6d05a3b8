"""Pure functions from tables and fits to matplotlib figures."""
