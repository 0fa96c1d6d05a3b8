"""One setting of every mixer, for tests that train with each."""

from __future__ import annotations

from typing import Any

PARENT = {"run_id": "reference", "at": {"steps": 1}, "optimizer": "reset"}
MIXERS: dict[str, dict[str, Any]] = {
    "doremi": {"mixer": {"name": "doremi", "rate": 1.5, "smoothing": 0.01}, "parent": PARENT},
    "doge": {"mixer": {"name": "doge", "rate": 300.0}},
    "odm": {"mixer": {"name": "odm", "memory": 0.5}},
    "odm_released": {"mixer": {"name": "odm_released", "memory": 0.5}},
    "skill_it": {"mixer": {"name": "skill_it", "rate": 0.7, "graph": {"a": {"a": 1.0, "b": 0.2}, "b": {"b": 0.4}},
                           "every": 3, "window": 2, "windows": 3}},
    "aioli": {"mixer": {"name": "aioli", "rate": 0.8, "memory": 1.0, "own": 0.75, "every": 8, "interval": 2,
                        "passes": 1, "windows": 3}},
    "bilevel": {"mixer": {"name": "bilevel", "rate": 0.5, "penalty": 3.0, "windows": 3}},
}
