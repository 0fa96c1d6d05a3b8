"""Train grids of small models at once; fit the scaling laws of their curves."""
