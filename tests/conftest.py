"""Settings of every test: rank promotion is an error, as are warnings (pyproject.toml); eight host devices.

What the suite costs is compilation. XLA compiles at its lowest level here, children of tests included, which halves
that; the code is the same, the last bits of its results are not. `XLA_FLAGS= make test` runs all as it is shipped.
"""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config: pytest.Config) -> None:
    """Compiled programs are kept with pytest's own cache: the workers of one session compile many of the same."""
    jax.config.update("jax_compilation_cache_dir", str(config.cache.mkdir("compiled")))
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
