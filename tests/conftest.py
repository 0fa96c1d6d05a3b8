"""Settings of every test: rank promotion is an error, as are warnings (pyproject.toml); eight host devices."""


import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
