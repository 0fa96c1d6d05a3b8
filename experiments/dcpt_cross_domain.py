"""A domain's whole surface from its first steps: the cross-domain D-CPT law on a domain that it was not fitted to.

The paper's K = w1/k1 + w2*k2 has k1 from the initial validation loss and k2 from its early rate of decline; how it
normalises them we could not read. Here, by domain and size, means over trunks: k1 is the trunk's loss of the domain in
nats/token, k2 the factor by which that loss declines over the first steps of training on the domain alone, positive
also for the general corpus, whose loss may rise a little at first (a fall a token would be negative there); w1 is 1.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from experiments.claims import Claim, verdict
from experiments.dcpt_held_out import errors, gain
from experiments.dcpt_runs import Settings, late, log_error, of_role
from experiments.statistics import Interval
from scaling import fitting
from scaling.fitting import Fit
from scaling.laws.law import TableError
from scaling.laws.mixture import D_CPT_CROSS_DOMAIN

PAPER = "Que et al. 2024, cross-domain D-CPT"


GUESSES = {"moved": "moved to its first loss",
           "scaled": "moved to its first loss, the fall scaled by that of the first steps"}


@dataclasses.dataclass(frozen=True)
class CrossDomain:
    """`coefficients`: k1, k2 and `fall`, nats/token a million tokens, by domain and N. `rows`: those of the new domain,
    with `predicted`, `moved`, `scaled`.
    `gains`: mean relative error of each guess less that of the law. `fit` is None where the coefficients do not make a
    table that the law can be fitted to; then `refused` says why.
    """

    coefficients: pd.DataFrame
    rows: pd.DataFrame
    fit: Fit | None
    gains: dict[str, Interval]
    refused: str


def coefficients(table: pd.DataFrame, domain: str, share: float, settings: Settings) -> pd.DataFrame:
    """k1, k2 and `fall` of a domain by N, from branches on it alone (`share` of the target then)."""
    rows = table[(table.domain == domain) & np.isclose(table.share, share) & (table.step == settings.early_step)]
    rows = rows.assign(decline=rows.start / (rows.start + rows.change), fall=-rows.change / rows.D * 1e6)
    means = rows.groupby("N").agg(k1=("start", "mean"), k2=("decline", "mean"), fall=("fall", "mean"))
    return means.reset_index().assign(domain=domain)


def cross_domain(
    into_target: pd.DataFrame, into_third: pd.DataFrame, domain_law: Fit, settings: Settings
) -> CrossDomain:
    """Fitted to the target's and the general corpus's losses, asked for the third domain's.

    The guesses know the same first steps: the target's own law L, moved by the difference of k1; and k1 of the third
    domain less the target's fall k1 - L scaled by the ratio of their early falls.
    """
    seen, new = into_target[~into_target.fresh], into_third[~into_third.fresh]
    known = pd.concat([coefficients(seen, settings.target, 1.0, settings),
                       coefficients(seen, settings.general, 0.0, settings),
                       coefficients(new, settings.third, 1.0, settings)], ignore_index=True)
    parts = [of_role(seen, "domain", settings), of_role(seen, "general", settings),
             of_role(new, "domain", settings, settings.third)]
    rows = late(pd.concat(parts, ignore_index=True), settings).merge(known, on=["N", "domain"])
    held_M = (rows.domain == settings.third).to_numpy()
    held = _guessed(rows[held_M].reset_index(drop=True), known[known.domain == settings.target], domain_law)
    try:
        fit = fitting.fit(D_CPT_CROSS_DOMAIN, rows, group="trunk", stratum="N", bootstrap=settings.bootstrap,
                          holdout=held_M)
    except TableError as error:
        return CrossDomain(known, held.assign(predicted=np.nan), None, {}, str(error))
    held = held.assign(predicted=fit.predict(held[list(fit.law.input_names)]))
    gains = {way: gain(log_error(held[way].to_numpy(), held.loss.to_numpy())[None], errors(fit, held),
                       held.trunk.to_numpy(), settings.level) for way in GUESSES}
    return CrossDomain(known, held, fit, gains, "")


def _guessed(held: pd.DataFrame, target: pd.DataFrame, law: Fit) -> pd.DataFrame:
    """Rows of the third domain with both guesses; `target` holds the coefficients of the domain that `law` is of."""
    of_target = target.set_index("N").loc[held.N]
    own = law.predict(held[["N", "D", "r"]])
    change = of_target.k1.to_numpy() - own
    return held.assign(moved=held.k1 - change, scaled=held.k1 - change * held.fall / of_target.fall.to_numpy())


def claims(found: CrossDomain, settings: Settings) -> list[Claim]:
    """Against the law of the domain that was seen, moved or scaled by the same first steps."""
    made = []
    for way, words in GUESSES.items():
        statement = (f"The cross-domain law predicts the loss of {settings.third}, which it was not fitted to, better "
                     f"than the law of {settings.target} {words}")
        if found.fit is None:
            made.append(Claim(statement, PAPER, f"refused: {found.refused}", np.nan, np.nan, np.nan, 0, "inconclusive"))
            continue
        interval, loss = found.gains[way], found.rows.loss.to_numpy()
        law, guess = (log_error(found.rows[column].to_numpy(), loss).mean() for column in ("predicted", way))
        refused = ", ".join(sorted({refusal.kind for refusal in found.fit.refusals}))
        made.append(Claim(statement, PAPER, f"error {law:.2%} against {guess:.2%}, gain {interval.value:+.2%} "
                          f"[{interval.low:+.2%}, {interval.high:+.2%}]"
                          + (f"; its parameters are refused: {refused}" if refused else ""), *interval,
                          found.rows.trunk.nunique(), verdict(interval.low, interval.high, 0.0)))
    return made
