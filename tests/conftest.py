"""Settings of every test: rank promotion is an error, as are warnings (pyproject.toml); eight host devices.

What the suite costs is compilation, so XLA leaves out what costs most there: its newest code generator and most of
LLVM's optimizations everywhere, children of tests included, and all of LLVM's where networks are trained for a few
steps. The programs are the same, the last bits of their results are not. `XLA_FLAGS= make test` leaves the first in.
"""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=1")
os.environ["JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"] = "none"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

gc.set_threshold(10_000, 20, 50)  # a full collection walks a million objects of JAX's caches, each time for nothing

BRIEF = {"models", "optimizers", "training", "workloads"}  # folders whose programs run for a moment


def pytest_configure(config: pytest.Config) -> None:
    """Compiled programs are kept with pytest's own cache: processes and children of a session compile many of the same.
    """
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(config.cache.mkdir("compiled"))
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])


@pytest.fixture(scope="module", autouse=True)
def _brief(request: pytest.FixtureRequest) -> Iterator[None]:
    """No optimizations by LLVM where compiling costs more than computing; a module's OPTIMIZED has the last word."""
    optimized = getattr(request.module, "OPTIMIZED", Path(request.module.__file__).parent.name not in BRIEF)
    jax.config.update("jax_disable_most_optimizations", not optimized)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
