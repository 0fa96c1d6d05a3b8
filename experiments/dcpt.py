"""Study: what the D-CPT law says of sizes, tokens and shares it never saw, and whether its recommendations hold.

Que et al. 2024 (arXiv 2406.01375): L3 against its rival forms with a size, the last tokens and a ratio held out; the
three applications, each decided by the law and then trained on fresh trunks (`to_check` says what); and the
cross-domain law on a third corpus. Losses are held against the own trunk's, on the level of the trunks' mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments import dcpt_applications, dcpt_cross_domain, dcpt_held_out
from experiments.claims import Claim
from experiments.dcpt_applications import Check, Trial
from experiments.dcpt_cross_domain import CrossDomain
from experiments.dcpt_held_out import HeldOut
from experiments.dcpt_runs import Settings, read
from scaling import fields
from scaling.fitting import Fit
from scaling.store import Store


@dataclasses.dataclass(frozen=True)
class Findings:
    """All that the study concludes; `laws` by role, fitted to all sizes, tokens and shares."""

    settings: Settings
    laws: dict[str, Fit]
    held_out: list[HeldOut]
    checks: list[Check]
    cross: CrossDomain
    claims: list[Claim]
    not_identified: list[str]


def settings_of(study: Mapping[str, Any]) -> Settings:
    """The study's settings, converted as strictly as a run's."""
    return fields.convert(Settings, study, "study")


def to_check(store: Store, study: Mapping[str, Any]) -> dict[int, list[Trial]]:
    """The branches that the three applications ask for, by width."""
    settings = settings_of(study)
    table = read(store, settings.target, settings)
    answers = dcpt_applications.decide(table, dcpt_applications.fit_laws(table, settings), settings)
    trials = sorted({trial for answer in answers for trial in answer.trials})
    return {width: [trial for trial in trials if trial.width == width] for width in {t.width for t in trials}}


def analyse(store: Store, study: Mapping[str, Any]) -> Findings:
    """Fit the laws, hold out, decide, check, and test the paper's claims."""
    settings = settings_of(study)
    table = read(store, settings.target, settings)
    laws = dcpt_applications.fit_laws(table, settings)
    held_out = dcpt_held_out.hold_out(table[~table.fresh], settings)
    checks = [dcpt_applications.check(answer, table, laws, settings)
              for answer in dcpt_applications.decide(table, laws, settings)]
    cross = dcpt_cross_domain.cross_domain(table, read(store, settings.third, settings), laws["domain"], settings)
    claims = [*dcpt_held_out.claims(held_out), *dcpt_applications.claims(checks, settings),
              *dcpt_cross_domain.claims(cross, settings)]
    return Findings(settings, laws, held_out, checks, cross, claims, _not_identified(laws, held_out, checks, cross))


def _not_identified(
    laws: Mapping[str, Fit], held_out: list[HeldOut], checks: list[Check], cross: CrossDomain
) -> list[str]:
    """Every refusal in words."""
    notes = [f"D-CPT, {role} loss: {refusal}" for role, fit in laws.items() for refusal in fit.refusals]
    notes += [f"{check.application.name}: {check.application.decision.refusal}" for check in checks
              if check.application.decision.refusal]
    for each in held_out:
        refused = each.rivals.table[each.rivals.table.refusals != ""]
        if len(refused):
            forms = "; ".join(f"{row.law} ({row.refusals})" for row in refused.itertuples())
            notes.append(f"{each.kind} held out, {each.role} loss: refused as to parameters, compared by predictions: "
                         f"{forms}")
    if cross.fit is None:
        return [*notes, f"cross-domain law: {cross.refused}"]
    return [*notes, *(f"cross-domain law: {refusal}" for refusal in cross.fit.refusals)]
