"""JAX in this process, before its first device is asked for."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def keep_compiled(cache: Path) -> None:
    """Keep compiled programs between processes: in JAX's own $JAX_COMPILATION_CACHE_DIR, else in `cache`/compiled."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache / "compiled"))
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")  # else the folder's path enters the key
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
