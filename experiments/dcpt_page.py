"""The report of the study `dcpt`: what was recommended and what came of it, what the law predicts, what it cannot."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from experiments.continual import claims_table, claims_text, plain
from experiments.critical_ratio_page import cost_table, decision_record
from experiments.dcpt import Findings
from experiments.dcpt_applications import Check
from experiments.dcpt_held_out import GUESSES, HeldOut
from experiments.dcpt_runs import Settings
from experiments.page import Page
from scaling.figures import decisions
from scaling.figures.decisions import Checked
from scaling.figures.style import png
from scaling.store import Store


def headline(found: Findings) -> str:
    """What the law recommended and what training it showed, in a sentence or two."""
    trade = found.checks[0]
    decision, s = trade.application.decision, found.settings
    if decision.refusal is not None:
        return f"The law names no share of {s.target} for {trade.application.question}: {decision.refusal.reason}."
    own = trade.runs[(trade.runs.role == "general") & (trade.runs.trial_share == trade.application.trials[0].share)]
    said = (f"The D-CPT law recommends {decision.value:.0%} [{decision.low:.0%}, {decision.high:.0%}] as "
            f"{trade.application.question}, at width {s.check_width}")
    if not len(own):
        return f"{said}; it was not trained."
    return f"{said}. Trained on {len(own)} fresh trunks, {s.general} loss rose by {own.rise.mean():.2%}."


def applications_table(found: Findings) -> pd.DataFrame:
    """Every trial with what was predicted and measured."""
    rows = []
    for check in found.checks:
        for row in check.trials.to_dict("records"):
            own = check.application.trials[0]
            recommended = (row["width"], row["share"], row["steps"]) == (own.width, own.share, own.steps)
            rows.append({
                "application": check.application.name, "trained": "recommended" if recommended else "beside it",
                "width": row["width"], "share": f"{row['share']:.0%}", "tokens": f"{row['D']:,.0f}",
                "loss": row["role"], "predicted": _range(row, "predicted", "predicted_low", "predicted_high"),
                "measured": _range(row, "measured", "low", "high"), "trunks": row["n"]})
    return pd.DataFrame(rows)


def _range(row: Mapping[Any, Any], value: str, low: str, high: str) -> str:
    return f"{row[value]:.4f} [{row[low]:.4f}, {row[high]:.4f}]"


def decisions_table(found: Findings) -> pd.DataFrame:
    """The three questions and what the law answers."""
    rows = []
    for check in found.checks:
        decision = check.application.decision
        form = ",.0f" if check.application.name == "allocation" else ".1%"
        rows.append({"application": check.application.name, "question": check.application.question,
                     "answer": f"{decision.value:{form}} [{decision.low:{form}}, {decision.high:{form}}]",
                     "refused": "" if decision.refusal is None else str(decision.refusal)})
    return pd.DataFrame(rows)


def held_out_table(found: Findings) -> pd.DataFrame:
    """Every form's error on what was held out."""
    rows = []
    for each in found.held_out:
        for row in each.rivals.table.to_dict("records"):
            rows.append({"held out": each.kind, "loss": each.role, "form": row["law"], "parameters": row["parameters"],
                         "rmse of log loss": f"{row['held_rmse']:.4f}", "fitted": f"{row['fitted_rmse']:.4f}",
                         "worse than the best by": "" if np.isnan(row["low"]) else
                         _range(row, "difference", "low", "high"), "refused": row["refusals"]})
    return pd.DataFrame(rows)


def summary(found: Findings) -> str:
    """What a person needs on the terminal."""
    tables = [decisions_table(found).drop(columns="question"), applications_table(found)]
    return "\n".join([headline(found), *("\n" + table.to_string(index=False) for table in tables), "",
                      claims_text(found.claims)])


def record(found: Findings) -> dict[str, Any]:
    """fits.json: laws as `Fit.from_json` reads them, comparisons, decisions, trials, claims and refusals."""
    return {
        "settings": plain(found.settings), "headline": headline(found),
        "fits": {f"d-cpt {role}": fit.to_json() for role, fit in found.laws.items()}
        | ({} if found.cross.fit is None else {"cross-domain": found.cross.fit.to_json()}),
        "held_out": [_held_out_record(each) for each in found.held_out],
        "applications": [{"name": check.application.name, "question": check.application.question,
                          "decision": decision_record(check.application.decision), "trials": plain(check.trials),
                          "runs": plain(check.runs)} for check in found.checks],
        "cross_domain": {"coefficients": plain(found.cross.coefficients), "refused": found.cross.refused,
                         "gains": {way: plain(tuple(gain)) for way, gain in found.cross.gains.items()}},
        "claims": [plain(dataclasses.asdict(claim)) for claim in found.claims],
        "not_identified": found.not_identified,
    }


def _held_out_record(each: HeldOut) -> dict[str, Any]:
    return {"role": each.role, "kind": each.kind, "r2": plain(each.r2), "gain": plain(tuple(each.gain)),
            "gain_over_no_share": plain(tuple(each.gain_over_no_share)), "forms": plain(each.rivals.table)}


def figures(found: Findings) -> dict[str, tuple[bytes, str]]:
    """PNG and caption by name."""
    s = found.settings
    tables = {f"{each.role} loss, {each.kind} held out": each.rows for each in found.held_out}
    trained = [_checked(check, found) for check in found.checks if check.application.trials]
    drawn = {
        "applications": (decisions.checked(trained),
                         f"The three applications: the law with its {s.level:.0%} interval, what it recommends (red, "
                         "with its interval), and fresh trunks trained there and beside it."),
        "held_out": (decisions.held_out_rows(tables, [GUESSES[each.kind] for each in found.held_out]),
                     "Rows that the law was not fitted to: predicted against measured, and the guess."),
    }
    if found.cross.fit is not None:
        drawn["cross_domain"] = (decisions.cross_domain(found.cross.rows),
                                 f"Losses of {s.third}, which the cross-domain law was not fitted to.")
    return {name: (png(figure), caption) for name, (figure, caption) in drawn.items()}


def _checked(check: Check, found: Findings) -> Checked:
    """One application as a panel: the law along what was decided."""
    s, name = found.settings, check.application.name
    role = "general" if name == "trade-off" else "domain"
    trials = check.trials[check.trials.role == role]
    first = trials.iloc[0]
    if name == "allocation":
        x_K = np.geomspace(trials.N.min() / 1.2, trials.N.max() * 1.2, 100)
        inputs = {"N": x_K, "D": s.budget / (6 * x_K), "r": np.full(100, s.allocation_share)}
    else:
        x_K = np.linspace(max(trials.share.min() - 0.1, 0.05), 1.0, 100)
        tokens_K = np.full(100, first.D) if name == "trade-off" else first.D * first.share / x_K
        inputs = {"N": np.full(100, first.N), "D": tokens_K, "r": 1 - x_K if role == "general" else x_K}
    law = found.laws[role]
    low_K, high_K = law.interval(inputs, s.level)
    curve = pd.DataFrame({"x": x_K, "loss": law.predict(inputs), "low": low_K, "high": high_K})
    place = trials.N if name == "allocation" else trials.share
    return Checked(name, "FLOPs a token / 6" if name == "allocation" else f"share of {s.target}", curve,
                   trials.assign(x=place)[["x", "measured", "low", "high"]], check.application.decision,
                   f"{s.general if role == 'general' else s.target} loss, nats/token", check.application.limit,
                   name != "allocation")


def page(store: Store, found: Findings) -> tuple[Page, dict[str, bytes]]:
    """The page and its figures."""
    s, drawn = found.settings, figures(found)
    made = Page(f"Sizes, tokens and shares of {s.target} by the D-CPT law, and its recommendations trained")
    made.paragraph(headline(found), "answer")
    made.heading("Claims")
    made.table(claims_table(found.claims))
    made.heading("Three decisions, and what training them showed")
    made.table(decisions_table(found))
    made.figure(*drawn["applications"])
    made.table(applications_table(found))
    made.heading("What the law says of what it did not see")
    made.figure(*drawn["held_out"])
    made.table(held_out_table(found))
    made.heading(f"A new domain, {s.third}, from its first steps")
    if "cross_domain" in drawn:
        made.figure(*drawn["cross_domain"])
    made.table(found.cross.coefficients.round(4))
    fits = {**found.laws, "cross-domain": found.cross.fit}
    made.end(found.not_identified, [cost_table(store)], method(s),
             {name: fit.summary() for name, fit in fits.items() if fit is not None})
    return made, {name: content for name, (content, _) in drawn.items()}


def method(s: Settings) -> list[str]:
    """How the numbers came about."""
    return [
        f"Trunks: widths {', '.join(map(str, s.widths))}, seeds {', '.join(map(str, s.seeds))}, on {s.general}, a "
        f"cosine down to {s.branch_peak:g}; branches at that rate for {s.branch_steps} steps at shares of {s.target} "
        f"{', '.join(f'{share:g}' for share in s.shares)} and of {s.third} "
        f"{', '.join(f'{share:g}' for share in s.third_shares)}.",
        "N is training FLOPs a token over 6, so that 6ND is the compute of a branch; the trunk's is not counted. The "
        "paper's convention for N is not known to us.",
        f"Laws: Huber on log loss, the points after the first {s.fit_from:.0%} of each branch, since no form of the "
        "law knows the rise of the general loss before it falls. Losses: nats a token on held-out windows, the change "
        "against the own trunk on the level of the trunks' mean.",
        f"Held out: the largest size, the tokens after {s.held_from:.0%} of a branch, the share {s.held_share:g}. "
        "Gains are differences of mean relative error; their intervals count held-out trunks and refits of the law.",
        "Checks: trunks of fresh seeds, trained at the recommended ratio or size and beside it. Intervals of "
        "measurements are Student's over these trunks; those of predictions are bootstrap over the fitted trunks "
        f"({s.bootstrap} draws). Neither counts the choice of held-out windows or of text.",
        "Cross-domain: K = 1/k1 + w2*k2, k1 the trunk's loss of the domain in nats/token, k2 the factor by which it "
        f"declines over the first {s.early_step} steps on the domain alone, both means over trunks by size. How the "
        "paper normalises them is not known to us.",
        "Made again from the store alone by python -m experiments.report.",
    ]
