"""The laws by name."""

import difflib
from typing import Any

from scaling.laws import (
    additive,
    annealing,
    capacity,
    compute,
    convex_bound,
    critical_batch,
    kaplan,
    learning_curves,
    learning_rate,
    mixing,
    mixture,
    multi_power,
    pass_until,
    repetition,
    routed,
    selection,
    size,
    sparsity,
    superposition,
    translation,
)
from scaling.laws.derived import pooled, with_fixed
from scaling.laws.law import Family, Law, RecordError

_MODULES = (
    mixture,
    mixing,
    additive,
    capacity,
    size,
    kaplan,
    critical_batch,
    compute,
    routed,
    translation,
    sparsity,
    superposition,
    pass_until,
    selection,
    repetition,
    learning_curves,
    learning_rate,
    annealing,
    multi_power,
    convex_bound,
)
LAWS: dict[str, Law] = {law.name: law for module in _MODULES for law in module.LAWS}
FAMILIES: dict[str, Family] = {f.name: f for module in _MODULES for f in getattr(module, "FAMILIES", ())}
FAMILIES |= {
    "fixed": Family(
        "fixed",
        "any law with some parameters held at given values",
        "",
        "",
        {"law": "record of the law", "fixed": "value by parameter"},
        lambda law, fixed: with_fixed(law_of(law), fixed),
    ),
    "pooled": Family(
        "pooled",
        "any law for many groups, some parameters shared",
        "",
        "",
        {"law": "record of the law", "by": "column", "labels": "its values", "shared": "parameters with one value"},
        lambda law, by, labels, shared: pooled(law_of(law), by, labels, shared),
    ),
}


def law_of(record: Any) -> Law:
    """The law that a `Law.record` describes, out of a file. Raises RecordError for what describes none."""
    name = record.get("name") if isinstance(record, dict) else None
    if not isinstance(name, str):
        raise RecordError("law: expected a record with the name of a law and its arguments")
    try:
        return law_named(**record)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        why = error.args[0] if error.args else type(error).__name__
        raise RecordError(f"law {name[:100]!r}: {str(why)[:2000]}; correct the record, or fit again") from error


def law_named(name: str, **arguments: Any) -> Law:
    """The law of that name, or the member of the family of that name that `arguments` make.

    Raises KeyError with the nearest name, ValueError for arguments that the family does not take.
    """
    if name in LAWS and not arguments:
        return LAWS[name]
    if name in FAMILIES:
        family = FAMILIES[name]
        if set(arguments) != set(family.arguments):
            wanted = ", ".join(f"{key} ({what})" for key, what in family.arguments.items())
            raise ValueError(f"law {name!r} needs exactly the arguments {wanted}; given: {sorted(arguments)}")
        return family.make(**arguments)
    if name in LAWS:
        raise ValueError(f"law {name!r} takes no arguments; given: {sorted(arguments)}")
    names = sorted({**LAWS, **FAMILIES})
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.3)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise KeyError(f"no law named {name!r}; {hint}the laws are {', '.join(names)}")
