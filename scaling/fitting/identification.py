"""What a fit may not be called: reasons for which parameters, or the whole fit, are not known.

Letters: M points, P parameters.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from scaling.fitting import coordinates
from scaling.fitting.problem import Minimum, Problem
from scaling.fitting.result import Refusal
from scaling.fitting.solver import Expansion
from scaling.fitting.uncertainty import slopes, spent
from scaling.laws.law import Law

AGREEMENT = 0.1  # least share of polished starts at the best objective
COLLINEAR = 0.99
SPARE = 4.0  # groups beyond those the fit spends; with 3, simulated 95% intervals cover 86%, with 4, 91 to 94%


def refusals(problem: Problem, minimum: Minimum, near: Expansion) -> tuple[Refusal, ...]:
    """Every refusal of a fit: bounds, few distinct values, collinear inputs, flat directions, disagreeing starts, few
    groups.
    """
    law, points = problem.law, problem.points
    found = [*at_bounds(law, minimum.u_P), *few_distinct(law, points.inputs), *collinear(law, points.inputs)]
    if flat := flat_parameters(problem, minimum.u_P, near):
        reason = f"the data leave {', '.join(flat)} undetermined; compare predictions, not these parameters"
        found.append(Refusal("flat", reason, flat))
    if minimum.agreement < AGREEMENT:
        reason = (
            f"{minimum.agreement:.0%} of polished starts reach the best objective, at least {AGREEMENT:.0%} expected"
        )
        found.append(Refusal("starts_disagree", f"{reason}; a better minimum may exist"))
    used = spent(near.jacobian_PxM, points.weight_M, points.group_M)
    if points.groups - used < SPARE:
        reason = (
            f"{points.groups} groups (runs), of which the fit spends {used:.1f}; at least {SPARE:g} more than it spends"
        )
        found.append(Refusal("few_groups", f"{reason} are needed for an interval to mean its level; add runs or seeds"))
    return tuple(found)


def at_bounds(law: Law, u_P: np.ndarray) -> list[Refusal]:
    """Parameters that ended on a bound."""
    low_P, high_P = coordinates.bounds(law)
    found = []
    for i, p in enumerate(law.parameters):
        for side, limit, hit in (
            ("lower", p.limits[0], u_P[i] <= low_P[i]),
            ("upper", p.limits[1], u_P[i] >= high_P[i]),
        ):
            if hit:
                reason = f"{p.name} ended on its {side} bound {limit:g}; that is the bound's value, not the data's"
                found.append(Refusal("bound", reason, (p.name,)))
    return found


def few_distinct(law: Law, inputs: Mapping[str, np.ndarray]) -> list[Refusal]:
    """Inputs with too few distinct values to separate their term from the others."""
    found = []
    for i in law.inputs:
        if not i.labels and (distinct := np.unique(inputs[i.name]).size) < i.distinct:
            terms = [(p.name, p.power[1]) for p in law.parameters if p.power and p.power[0] == i.name]
            reason = f"{distinct} distinct values of {i.name}, {i.distinct} needed to separate its term from the rest"
            named = tuple(name for term in terms for name in term)
            found.append(Refusal("few_distinct", f"{reason}; add runs at other values", named))
    return found


def collinear(law: Law, inputs: Mapping[str, np.ndarray]) -> list[Refusal]:
    """Pairs of inputs that move as one: correlation of their logarithms (of the values where one is 0) above 0.99.

    Along such a design, for example D = 20 N throughout, one input's term passes for the other's. Shares of one mixture
    are left out where they are two: they must move as one.
    """
    names = [i.name for i in law.inputs if not i.labels and np.unique(inputs[i.name]).size > 1]
    found = []
    for first, second in combinations(names, 2):
        if {first, second} == set(law.simplex):
            continue
        pair = [np.log(inputs[name]) if (inputs[name] > 0).all() else inputs[name] for name in (first, second)]
        if abs(correlation := float(np.corrcoef(pair)[0, 1])) > COLLINEAR:
            reason = (
                f"{first} and {second} move as one (correlation {correlation:.4f}), so their terms cannot be told apart"
            )
            found.append(Refusal("collinear", f"{reason}; add runs that vary one at fixed other"))
    return found


def flat_parameters(problem: Problem, u_P: np.ndarray, near: Expansion) -> tuple[str, ...]:
    """Parameters that take part (weight above 0.3) in a direction the data leave open.

    Open: standard deviation above 1 in log or logit coordinates (a factor of e), for a signed parameter above its own
    size (or the target's spread for a linear one, half its start range else); or information below 1e-12 of the
    largest. The standard deviation takes points as independent, so it errs towards identified; the bootstrap by group
    is the one to quote.
    """
    law, target_M, delta = problem.law, problem.points.target_M, problem.objective.delta
    scale_P = np.ones(len(u_P))
    for i, parameter in enumerate(law.parameters):
        if parameter.transform == "real":
            spread = np.std(target_M) if parameter.linear else (parameter.start[1] - parameter.start[0]) / 2
            scale_P[i] = max(abs(u_P[i]), float(spread))
    scaled_PxM = near.jacobian_PxM * scale_P[:, None] * np.sqrt(problem.points.weight_M)
    information_P, direction_PxP = np.linalg.eigh(scaled_PxM @ scaled_PxM.T)
    score_M = np.clip(near.residual_M, -delta, delta)
    noise = np.average(score_M**2, weights=problem.points.weight_M) / np.mean(slopes(near.residual_M, delta)) ** 2
    open_P = (information_P < noise) | (information_P < 1e-12 * information_P[-1])
    named_P = (np.abs(direction_PxP[:, open_P]) > 0.3).any(axis=1)
    return tuple(name for name, named in zip(law.parameter_names, named_P, strict=True) if named)
