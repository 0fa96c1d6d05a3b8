"""Values out of a JSON record, each of the type that it must be. All raise RecordError, naming the part."""

import math
from typing import Any

import numpy as np

from scaling.laws.law import RecordError


def real(value: Any, name: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise RecordError(f"{name}: expected a finite number, not {_shown(value)}")
    return value


def whole(value: Any, name: str) -> int:
    """A whole number, none below 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RecordError(f"{name}: expected a whole number, not {_shown(value)}")
    return value


def text_of(value: Any, name: str) -> Any:
    """Text."""
    if not isinstance(value, str):
        raise RecordError(f"{name}: expected text, not {_shown(value)}")
    return value


def texts(value: Any, name: str) -> tuple[str, ...]:
    """A list of texts."""
    if not isinstance(value, list):
        raise RecordError(f"{name}: expected a list of text, not {_shown(value)}")
    return tuple(text_of(item, name) for item in value)


def array(
    value: Any, shape: tuple[int, ...], name: str, dtype: Any = np.float64, unknown: bool = False,
) -> np.ndarray:
    """Finite numbers of a shape; null is nan where some may be unknown."""
    try:
        numbers = np.array(value, dtype=dtype)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RecordError(f"{name}: expected numbers in lists of equal length, not {_shown(value)}") from error
    if numbers.shape != shape:
        raise RecordError(f"{name}: expected the shape {shape}, not {numbers.shape}")
    if not (np.isfinite(numbers) | (unknown & np.isnan(numbers))).all():
        raise RecordError(f"{name}: expected finite numbers, not {_shown(numbers[~np.isfinite(numbers)][0].item())}")
    return numbers


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.100}"
    except (RecursionError, ValueError):  # too deep, or too many digits
        return type(value).__name__
