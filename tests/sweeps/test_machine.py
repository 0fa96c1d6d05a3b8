"""Where compiled programs are kept."""

from pathlib import Path

import jax
import pytest

from scaling.sweeps.machine import keep_compiled


@pytest.mark.parametrize("own", [True, False])
def test_jaxs_own_setting_of_the_folder_comes_first(own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = jax.config.jax_compilation_cache_dir
    if not own:
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    try:
        keep_compiled(tmp_path)
        assert jax.config.jax_compilation_cache_dir == (before if own else str(tmp_path / "compiled"))
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
