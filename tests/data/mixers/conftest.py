"""Mixers are checked in double precision; single is checked where a test says so."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield
