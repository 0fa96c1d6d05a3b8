"""A domain's whole surface from its first steps: the cross-domain D-CPT law on a domain that it was not fitted to.

The paper's K = w1/k1 + w2*k2 has k1 from the initial validation loss and k2 from its early rate of decline; how it
normalises them we could not read. Here, by domain and size, means over trunks: k1 is the trunk's loss of the domain in
nats/token, k2 the fall of that loss a million tokens over the first steps of training on the domain alone; w1 is 1.
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


@dataclasses.dataclass(frozen=True)
class CrossDomain:
    """`coefficients`: k1, k2 by domain and N. `rows`: those of the new domain, with `predicted`, `guess`. `fit` is None
    where the coefficients do not make a table that the law can be fitted to; then `refused` says why.
    """

    coefficients: pd.DataFrame
    rows: pd.DataFrame
    fit: Fit | None
    gain: Interval | None
    refused: str


def coefficients(table: pd.DataFrame, domain: str, share: float, settings: Settings) -> pd.DataFrame:
    """k1 and k2 of a domain by N, from branches on it alone (`share` of the target then)."""
    rows = table[(table.domain == domain) & np.isclose(table.share, share) & (table.step == settings.early_step)]
    rows = rows.assign(fall=-rows.change / rows.D * 1e6)
    return rows.groupby("N").agg(k1=("start", "mean"), k2=("fall", "mean")).reset_index().assign(domain=domain)


def cross_domain(
    into_target: pd.DataFrame, into_third: pd.DataFrame, domain_law: Fit, settings: Settings
) -> CrossDomain:
    """Fitted to the target's and the general corpus's losses, asked for the third domain's.

    The guess: the target's own law, moved up by the difference of the trunk's losses of the two domains.
    """
    seen, new = into_target[~into_target.fresh], into_third[~into_third.fresh]
    known = pd.concat([coefficients(seen, settings.target, 1.0, settings),
                       coefficients(seen, settings.general, 0.0, settings),
                       coefficients(new, settings.third, 1.0, settings)], ignore_index=True)
    parts = [of_role(seen, "domain", settings), of_role(seen, "general", settings),
             of_role(new, "domain", settings, settings.third)]
    rows = late(pd.concat(parts, ignore_index=True), settings).merge(known, on=["N", "domain"])
    held_M = (rows.domain == settings.third).to_numpy()
    held = rows[held_M].reset_index(drop=True)
    above = known.pivot(index="N", columns="domain", values="k1")
    shift = held.N.map(above[settings.third] - above[settings.target])
    held = held.assign(guess=domain_law.predict(held[["N", "D", "r"]]) + shift)
    try:
        fit = fitting.fit(D_CPT_CROSS_DOMAIN, rows, group="trunk", stratum="N", bootstrap=settings.bootstrap,
                          holdout=held_M)
    except TableError as error:
        return CrossDomain(known, held.assign(predicted=np.nan), None, None, str(error))
    held = held.assign(predicted=fit.predict(held[list(fit.law.input_names)]))
    guess_1xH = log_error(held.guess.to_numpy(), held.loss.to_numpy())[None]
    return CrossDomain(known, held, fit, gain(guess_1xH, errors(fit, held), held.trunk.to_numpy(), settings.level), "")


def claims(found: CrossDomain, settings: Settings) -> list[Claim]:
    """Against the shifted law of the domain that was seen."""
    statement = (f"The cross-domain law predicts the loss of {settings.third}, which it was not fitted to, better than "
                 f"the law of {settings.target} moved to its first loss")
    if found.fit is None or found.gain is None:
        return [Claim(statement, PAPER, f"refused: {found.refused}", np.nan, np.nan, np.nan, 0, "inconclusive")]
    law, guess = (log_error(found.rows[way].to_numpy(), found.rows.loss.to_numpy()).mean()
                  for way in ("predicted", "guess"))
    flat = ", ".join(sorted({refusal.kind for refusal in found.fit.refusals}))
    return [Claim(statement, PAPER, f"error {law:.2%} against {guess:.2%}, gain "
                  f"{found.gain.value:+.2%} [{found.gain.low:+.2%}, {found.gain.high:+.2%}]"
                  + (f"; its parameters are refused: {flat}" if flat else ""), *found.gain,
                  found.rows.trunk.nunique(), verdict(found.gain.low, found.gain.high, 0.0))]
