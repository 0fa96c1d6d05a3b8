"""Two settings of every optimizer that differ in all that is traced."""

from typing import Any

from scaling.optimizer import FORMS, SETTINGS

ONE = {"b1": 0.9, "b2": 0.95, "eps": 1e-8, "momentum": 0.9, "memory": 0.8, "b3": 0.99, "alpha": 2.0, "scale": 0.3,
       "delta": 0.1, "decay_ratio": 0.1, "tolerance": 1e-5}
OTHER = {"b1": 0.8, "b2": 0.99, "eps": 1e-6, "momentum": 0.7, "memory": 0.6, "b3": 0.9, "alpha": 1.0, "scale": 0.05,
         "delta": 0.4, "decay_ratio": 0.5, "tolerance": 1e3}
STATIC = {"every": 2, "rank": 2}
VARIANTS = [(name, form) for name in SETTINGS for form in FORMS.get(name, (None,))]


def optimizer_changes(name: str, form: str | None, numbers: dict[str, float] = ONE) -> dict[str, Any]:
    """Changes of a configuration to this optimizer."""
    values: dict[str, Any] = {**dict.fromkeys(numbers), **dict.fromkeys(STATIC), "name": name, "form": form}
    values |= {setting: value for setting, value in {**numbers, **STATIC}.items() if setting in SETTINGS[name]}
    if name == "layca":
        values["weight_decay"] = 0.0
    return {f"optimizer.{field}": value for field, value in values.items()}
