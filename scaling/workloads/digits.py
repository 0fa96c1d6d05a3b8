"""The handwritten digits that scikit-learn ships: 1797 images of 8 × 8 pixels. N images."""

from __future__ import annotations

import functools
import hashlib
from typing import NamedTuple

import numpy as np

from scaling.fields import ConfigError

PIXELS, CLASSES = 64, 10
WHITE = 16.0  # the largest pixel as shipped
HELD_OUT = 3  # every so many-th image is for validation alone


class Images(NamedTuple):
    """Pixels from 0 to 1, float32, and the digit shown, int32."""

    pixels_Nx64: np.ndarray
    labels_N: np.ndarray


class Digits(NamedTuple):
    """The split is part of the data: it is the same for every seed. `checksum`: of all that is here."""

    training: Images
    validation: Images
    checksum: str


@functools.cache
def digits() -> Digits:
    """1198 images to train on, 599 held out. Raises ConfigError without scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConfigError("workload digits: expected scikit-learn, which ships the images; pip install "
                          "'scaling[bench]'") from error
    raw = load_digits()
    pixels_Nx64 = (raw.data / WHITE).astype(np.float32)
    labels_N = raw.target.astype(np.int32)
    held_N = np.arange(len(labels_N)) % HELD_OUT == HELD_OUT - 1
    checksum = hashlib.sha256(pixels_Nx64.tobytes() + labels_N.tobytes() + held_N.tobytes()).hexdigest()[:12]
    training, validation = (Images(pixels_Nx64[chosen], labels_N[chosen]) for chosen in (~held_N, held_N))
    return Digits(training, validation, checksum)
