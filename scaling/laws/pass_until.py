"""Rates of rare success: sampled until a given number of successes, and their law in size."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.laws.law import Input, Law, Parameter, power


def _pass_until(p: Mapping[str, Any], x: Mapping[str, Any]) -> jax.Array:
    return jnp.exp(-p["c"] * power(x["N"], -p["alpha"]))


PASS_UNTIL = Law(
    name="pass-until",
    formula="exp(-c/N^alpha)",
    citation="Hu et al. 2023, arXiv 2310.03262 (ICLR 2024)",
    inputs=(Input("N", "parameters"),),
    target="rate of success of a task, in (0, 1]",
    parameters=(
        Parameter("c", "positive", (1e-2, 100.0), bounds=(1e-9, 1e4), unit="N^alpha"),
        Parameter("alpha", "positive", (0.03, 2.0), bounds=(1e-3, 10.0)),
    ),
    predict=_pass_until,
    notes="log(-log rate) is linear in log N; where it is convex the task scales worse, concave better (emergence)."
    " Chance must give 0. c holds the length of the answer, so tasks are not comparable. On log residuals a rate from"
    " r successes weighs the same whatever its size, about 1/sqrt(r).",
)


def success_rate(successes: Any, samples: Any) -> np.ndarray:
    """Unbiased rate from sampling until `successes`: (r - 1)/(K - 1), K samples in all; r/K would be too high.

    ValueError unless 2 <= r <= K. A cap on K truncates: a task that hit it has no rate.
    """
    r, k = np.asarray(successes, dtype=np.float64), np.asarray(samples, dtype=np.float64)
    if (bad := ~((r >= 2) & (k >= r))).any():
        one_r, one_k = (array[bad].flat[0] for array in np.broadcast_arrays(r, k))
        raise ValueError(
            f"successes, samples: {one_r:g} in {one_k:g}, expected 2 <= successes <= samples; sample until at least two"
        )
    return (r - 1) / (k - 1)


LAWS = (PASS_UNTIL,)
