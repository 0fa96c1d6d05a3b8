"""Published laws refitted to published measurements, one module a family of tables."""
