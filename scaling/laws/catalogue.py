"""The laws by name."""

import difflib

from scaling.laws import mixture, size
from scaling.laws.law import Law

LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        mixture.D_CPT,
        mixture.CMR_RATIO,
        mixture.CMR_DOMAIN_CHANGE,
        mixture.CMR_GENERAL_CHANGE,
        mixture.CMR_CRITICAL,
        size.CHINCHILLA,
    )
}


def law_named(name: str) -> Law:
    """The law of that name. Raises KeyError with the nearest name."""
    if name not in LAWS:
        near = difflib.get_close_matches(name.lower(), LAWS, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise KeyError(f"no law named {name!r}; {hint}the laws are {', '.join(sorted(LAWS))}")
    return LAWS[name]
