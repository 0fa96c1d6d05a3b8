"""Mixers by name, and when those that look at held-out windows do so."""

from __future__ import annotations

from scaling import weighing
from scaling.data.mixers.aioli import aioli, probe_steps
from scaling.data.mixers.bilevel import bilevel
from scaling.data.mixers.doge import doge
from scaling.data.mixers.doremi import doremi
from scaling.data.mixers.mixer import Mixer, MixerValues
from scaling.data.mixers.odm import odm, odm_released
from scaling.data.mixers.skill_it import skill_it
from scaling.fields import check

BY_VALUES = {"doremi": doremi, "doge": doge, "odm": odm, "odm_released": odm_released, "bilevel": bilevel}


def build(spec: weighing.Mixer, values: MixerValues) -> Mixer:
    """The mixer that `spec` names, under traced `values`."""
    if spec.name == "aioli":
        return aioli(values, *_rounds(spec))
    if spec.name == "skill_it":
        assert spec.window is not None
        return skill_it(values, spec.window)
    return BY_VALUES[spec.name](values)


def observation_steps(spec: weighing.Mixer, steps: int, domains: int) -> tuple[int, ...]:
    """Steps done, rising and below `steps`, at which a mixer that sees held_out is updated; none for the others.

    skill_it: every, 2 every, ...; aioli: 0, interval, ..., passes · domains · interval after the start of each round.

    Raises:
      ConfigError: a round of aioli, the last one included, that its probes fill.
    """
    if spec.name == "skill_it":
        assert spec.every is not None
        return tuple(range(spec.every, steps, spec.every))
    if spec.name != "aioli":
        return ()
    every, interval, passes = _rounds(spec)
    probes = probe_steps(domains, interval, passes)
    starts = range(0, steps, every)
    for start in starts:
        length = min(every, steps - start)
        check(length > probes, "mixer.every", every,
              f"rounds longer than their {passes} · {domains} · {interval} = {probes} steps of probes, not {length} at "
              f"step {start} of {steps}", "raise it to a divisor of the steps, or lower mixer.interval or mixer.passes")
    return tuple(start + done for start in starts for done in range(0, probes + 1, interval))


def _rounds(spec: weighing.Mixer) -> tuple[int, int, int]:
    """Steps of a round and of a probe, sweeps of probes a round."""
    assert spec.every is not None
    assert spec.interval is not None
    assert spec.passes is not None
    return spec.every, spec.interval, spec.passes
