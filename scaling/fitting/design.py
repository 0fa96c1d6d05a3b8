"""What to run next: the sets of candidate runs that most reduce the uncertainty of a target for their cost.

Linearised optimal design for one target (c-optimality). A set S added to the runs at hand leaves the target g with

    se(S)^2 = x' (F0 + sum_k F_k) x,   (H0 + sum_k H_k) x = dg/du,

H the information that the objective sees and F the variance of its score, with the fit's own noise: a run's shared part
and a point's own. This is the sandwich covariance that a refit with S would report. It is taken at the estimate and at
bootstrap draws, and their standard errors are averaged geometrically, so that no design rests on one parameter vector.

Letters: B parameter vectors (the estimate in front), K candidate runs, M rows, G runs, P parameters.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy.stats import norm

from scaling.fitting import coordinates
from scaling.fitting.knowledge import Knowledge, known_from
from scaling.fitting.result import Fit, Refusal
from scaling.laws.law import TableError, read_column

Target = Mapping[str, float] | Callable[[Mapping[str, Any]], Any]

_CHUNK = 1 << 16  # candidates times vectors at once
_LEAST = 1e-3  # relative gain below which a run or an exchange is not worth naming
_CARRIES = 0.02  # share of the total influence below which an input's value does not count as seen


@dataclass(frozen=True, eq=False)
class Plan:
    """Runs to make, in the order in which to make them, and what they are predicted to leave of the uncertainty.

    `table`: one row a run with its candidate's label, its inputs, `cost`, `spent` so far, the target's `standard_error`
    and interval `width` once it is in, and `per_cost`, the fall of the standard error for its cost. `value` is the
    target at the estimate, `before` its standard error without new runs.
    """

    table: pd.DataFrame
    value: float
    before: float
    level: float
    refusals: tuple[Refusal, ...]
    warnings: tuple[Refusal, ...]

    @property
    def cost(self) -> float:
        """What the runs cost together."""
        return float(self.table["cost"].sum())

    @property
    def after(self) -> float:
        """The predicted standard error of the target with all runs."""
        return float(self.table["standard_error"].iloc[-1]) if len(self.table) else self.before

    @property
    def width(self) -> float:
        """The predicted width of the target's interval with all runs."""
        return _width(self.after, self.level)

    def __str__(self) -> str:
        now = f"target {self.value:.5g}, {self.level:.0%} interval of width {_width(self.before, self.level):.3g} now"
        lines = [f"{now}, {self.width:.3g} after {len(self.table)} runs of cost {self.cost:.4g}"]
        if len(self.table):
            lines.append(self.table.to_string(float_format="{:.4g}".format, max_rows=20))
        lines += [f"refused, {refusal}" for refusal in self.refusals]
        return "\n".join(lines + [f"the fit was refused, {warning}" for warning in self.warnings])


@dataclass(frozen=True, eq=False)
class Design:
    """Candidates, their cost, and the information of each; `design` makes it."""

    known: Knowledge
    candidates: pd.DataFrame
    cost_K: np.ndarray
    repeats: int
    value: float
    gradient_BxP: np.ndarray
    bread_KxBxPxR: np.ndarray
    meat_KxBxPxR: np.ndarray
    influence_KxP: np.ndarray

    def alone(self, level: float = 0.95) -> pd.DataFrame:
        """Every candidate as the only new run: predicted standard error, width, and fall per cost, best first."""
        before = self._error(np.zeros(len(self.cost_K), dtype=int))
        error_K = np.exp(self._adding(np.zeros(len(self.cost_K), dtype=int), np.arange(len(self.cost_K))))
        table = self.candidates.assign(cost=self.cost_K, standard_error=error_K, width=_width(error_K, level))
        return table.assign(per_cost=(before - error_K) / self.cost_K).sort_values("per_cost", ascending=False)

    def rank(self, budget: float, level: float = 0.95) -> Plan:
        """The runs to make within `budget`: greedy by gain per cost and by gain alone, each improved by exchanges.

        The better of the two; its runs are then ordered by gain per cost, so that a plan cut short is still good.
        Refusals: "few_distinct" (the target would rest on fewer values of an input than its law needs, so that a law
        wrong in form would not show), "infeasible" (no candidate is affordable). ValueError for a budget <= 0.
        """
        if not budget > 0:
            raise ValueError(f"budget: {budget} must be > 0, in the unit of the candidates' cost")
        return self._plan(self._best(budget), level, f"no candidate costs {budget:.4g} or less; raise the budget")

    def width_of(self, count_K: np.ndarray, level: float = 0.95) -> float:
        """The predicted width of the target's interval after so many runs of each candidate: a design of your own."""
        if np.shape(count_K) != self.cost_K.shape:
            raise ValueError(f"count: shape {np.shape(count_K)} must be one number a candidate, {self.cost_K.shape}")
        return float(_width(self._error(np.asarray(count_K)), level))

    def frontier(self, budgets: np.ndarray | None = None, level: float = 0.95) -> pd.DataFrame:
        """Predicted standard error and width of the best plan at each budget; by default 12 of them, up to all runs."""
        if budgets is None:
            budgets = np.geomspace(self.cost_K.min(), self.cost_K.sum() * self.repeats, 12)
        plans = [self.rank(float(budget), level) for budget in budgets]
        rows = [(budget, p.cost, len(p.table), p.after, p.width) for budget, p in zip(budgets, plans, strict=True)]
        return pd.DataFrame(rows, columns=["budget", "cost", "runs", "standard_error", "width"])

    def cheapest(self, width: float, level: float = 0.95) -> Plan:
        """The cheapest plan found whose predicted interval is no wider than `width`: by bisection of the budget, then
        leaving out what is not needed.

        Refused as "infeasible", with every candidate in it, where all of them do not reach the width.
        """
        if not width > 0:
            raise ValueError(f"width: {width} must be > 0, in the unit of the target")
        aim = np.log(width / _width(1.0, level))
        count_K = np.full(len(self.cost_K), self.repeats)
        if self._log_error(count_K) > aim:
            plan = self._plan(count_K, level, "")
            reason = f"all candidates together leave a width of {plan.width:.4g}, above {width:.4g}"
            refusal = Refusal("infeasible", f"{reason}; offer other candidates, or more repeats")
            return Plan(plan.table, plan.value, plan.before, level, (refusal, *plan.refusals), plan.warnings)
        if self._log_error(0 * count_K) <= aim:
            return self._plan(0 * count_K, level, "")
        low, high = np.log(self.cost_K.min()), np.log(self.cost_K.sum() * self.repeats)
        for _ in range(8):
            found_K = self._best(float(np.exp((low + high) / 2)))
            if self._log_error(found_K) <= aim:
                count_K = found_K
                high = np.log(found_K @ self.cost_K)
            else:
                low = (low + high) / 2
        for k in np.argsort(-self.cost_K, kind="stable").tolist():
            while count_K[k] and self._log_error(fewer_K := count_K - _one(k, count_K.size)) <= aim:
                count_K = fewer_K
        return self._plan(count_K, level, "")

    def _error(self, count_K: np.ndarray) -> float:
        return float(np.exp(self._log_error(count_K)))

    def _log_error(self, count_K: np.ndarray) -> float:
        _, x_BxP, meat_BxPxP = self._solved(count_K)
        return float(0.5 * np.log(np.einsum("bp,bpq,bq->b", x_BxP, meat_BxPxP, x_BxP)).mean())

    def _solved(self, count_K: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """H^-1, x = H^-1 dg/du and F after so many runs of each candidate."""
        chosen = np.flatnonzero(count_K)
        sums = [self.known.bread_BxPxP, self.known.meat_BxPxP]
        for place, root_KxBxPxR in enumerate((self.bread_KxBxPxR[chosen], self.meat_KxBxPxR[chosen])):
            scaled_KxBxPxR = root_KxBxPxR * count_K[chosen][:, None, None, None]
            sums[place] = sums[place] + np.einsum("kbpr,kbqr->bpq", scaled_KxBxPxR, root_KxBxPxR, optimize=True)
        inverse_BxPxP = np.linalg.inv(sums[0])
        return inverse_BxPxP, np.einsum("bpq,bq->bp", inverse_BxPxP, self.gradient_BxP), sums[1]

    def _adding(self, count_K: np.ndarray, among: np.ndarray) -> np.ndarray:
        """Log standard error with one more run of each candidate of `among`.

        By x - H^-1 R (1 + R'H^-1 R)^-1 R'x for a run of H-root R, so that a run of one row costs a few products.
        """
        inverse_BxPxP, x_BxP, meat_BxPxP = self._solved(count_K)
        step = max(1, _CHUNK // len(x_BxP))
        errors = []
        for some in np.split(among, range(step, len(among), step)):
            root_KxBxPxR, meat_KxBxPxR = self.bread_KxBxPxR[some], self.meat_KxBxPxR[some]
            far_KxBxPxR = inverse_BxPxP @ root_KxBxPxR
            root_KxBxRxP = root_KxBxPxR.swapaxes(2, 3)
            pull_KxBxRx1 = np.linalg.solve(
                np.eye(root_KxBxPxR.shape[3]) + root_KxBxRxP @ far_KxBxPxR, root_KxBxRxP @ x_BxP[:, :, None]
            )
            new_KxBxPx1 = x_BxP[:, :, None] - far_KxBxPxR @ pull_KxBxRx1
            own_KxB = ((meat_KxBxPxR.swapaxes(2, 3) @ new_KxBxPx1) ** 2).sum(axis=(2, 3))
            old_KxB = (new_KxBxPx1 * (meat_BxPxP @ new_KxBxPx1)).sum(axis=(2, 3))
            errors.append(0.5 * np.log(old_KxB + own_KxB).mean(axis=1))
        return np.concatenate(errors)

    def _best(self, budget: float) -> np.ndarray:
        """How often to run each candidate."""
        none_K = np.zeros(len(self.cost_K), dtype=int)
        plans = [self._exchanged(self._filled(none_K, budget, power), budget) for power in (1.0, 0.0)]
        return min(plans, key=self._log_error)

    def _affordable(self, count_K: np.ndarray, left: float) -> np.ndarray:
        return np.flatnonzero((count_K < self.repeats) & (self.cost_K <= left * (1 + 1e-9)))

    def _filled(self, count_K: np.ndarray, budget: float, power: float) -> np.ndarray:
        """Greedy: the run of the greatest gain/cost^power, until no gain is left or no budget."""
        count_K, error = count_K.copy(), self._log_error(count_K)
        while len(among := self._affordable(count_K, budget - count_K @ self.cost_K)):
            gain = error - self._adding(count_K, among)
            if gain.max() < _LEAST:
                break
            gain[gain < _LEAST] = 0.0
            best = int(np.argmax(gain / self.cost_K[among] ** power))
            count_K[among[best]] += 1
            error -= gain[best]
        return count_K

    def _exchanged(self, count_K: np.ndarray, budget: float) -> np.ndarray:
        """One run out, another in, and the rest of the budget filled, as long as it helps."""
        error, improved = self._log_error(count_K), True
        while improved:
            improved = False
            for out in np.flatnonzero(count_K).tolist():
                if not count_K[out]:
                    continue
                without_K = count_K - _one(out, count_K.size)
                among = self._affordable(without_K, budget - without_K @ self.cost_K)
                errors = self._adding(without_K, among)
                best = int(np.argmin(errors))
                if errors[best] < error - _LEAST:
                    count_K = self._filled(without_K + _one(int(among[best]), count_K.size), budget, 0.0)
                    error, improved = self._log_error(count_K), True
        return count_K

    def _in_order(self, count_K: np.ndarray) -> Iterator[tuple[int, float]]:
        """The runs of a plan by gain per cost, each with the standard error once it is in."""
        in_K, error = np.zeros_like(count_K), self._log_error(np.zeros_like(count_K))
        while len(among := np.flatnonzero(in_K < count_K)):
            errors = self._adding(in_K, among)
            best = int(np.argmax((error - errors) / self.cost_K[among]))
            in_K[among[best]] += 1
            error = errors[best]
            yield int(among[best]), float(np.exp(error))

    def _plan(self, count_K: np.ndarray, level: float, unaffordable: str) -> Plan:
        before = self._error(np.zeros_like(count_K))
        order = list(self._in_order(count_K))
        table = self.candidates.iloc[[k for k, _ in order]].rename_axis("candidate").reset_index()
        cost, error = self.cost_K[[k for k, _ in order]], np.array([error for _, error in order])
        fall = -np.diff(error, prepend=before)
        table = table.assign(
            cost=cost, spent=np.cumsum(cost), standard_error=error, width=_width(error, level), per_cost=fall / cost
        )
        refusals = self._guard(count_K) if len(order) else ()
        if not len(order) and unaffordable:
            refusals = (Refusal("infeasible", unaffordable),)
        return Plan(table, self.value, before, level, refusals, self.known.warnings)

    def _guard(self, count_K: np.ndarray) -> tuple[Refusal, ...]:
        """Inputs of which too few values would carry the target: |influence| of the runs on it, summed by value."""
        direction_P = self._solved(count_K)[1][0]
        new = np.repeat(np.arange(len(count_K)), count_K)
        size_M = np.abs(np.concatenate([self.known.influence_MxP, self.influence_KxP[new]]) @ direction_P)
        found = []
        for i in self.known.law.inputs:
            if i.labels or i.name not in self.candidates:
                continue
            value_M = np.concatenate([self.known.inputs[i.name], self.candidates[i.name].to_numpy(float)[new]])
            carried = pd.Series(size_M).groupby(value_M).sum() / max(size_M.sum(), 1e-300)
            if (seen := int((carried > _CARRIES).sum())) < i.distinct:
                reason = f"{seen} values of {i.name} would carry the target, {i.distinct} needed to see that the law"
                found.append(Refusal("few_distinct", f"{reason} holds; add candidates at other values", (i.name,)))
        return tuple(found)


def design(
    known: Fit | Knowledge,
    candidates: pd.DataFrame,
    *,
    target: Target,
    cost: str = "cost",
    columns: Mapping[str, str] | None = None,
    run: str | None = None,
    repeats: int = 1,
) -> Design:
    """Prepares the choice of what to run next; `.rank(budget)` chooses, `.cheapest(width)` asks for the budget.

    `known`: a fit, or what else is known of a law's parameters (`assumed`, for a first design without any run).
    `candidates`: one row a run with the law's inputs (mapped by `columns`) and its `cost` > 0 (FLOPs), or, where `run`
    names a column, one row a logged point, `cost` repeated on each. `repeats`: how often one candidate may be run, with
    other seeds. `target`: inputs at which the loss is wanted, such as {"N": 7e9, "D": 1.4e12}, or a function of the
    law's parameters in jax.numpy, such as lambda p: p["alpha"] - p["beta"].

    Raises TableError for candidates that the law cannot read or without cost, ValueError for a target whose derivative
    is 0 or not finite at the estimate.
    """
    if isinstance(known, Fit):
        known = known_from(known)
    if repeats < 1:
        raise ValueError(f"repeats: {repeats} must be >= 1: how often a candidate may be run")
    law = known.law
    inputs = law.read_inputs(candidates, columns)
    cost_M = read_column(candidates, cost, "the cost of a run, cost=")
    if (cost_M <= 0).any():
        row = int(np.argmax(cost_M <= 0))
        raise TableError(f"column {cost!r}, row {candidates.index[row]}: {cost_M[row]:g} must be > 0: a run's cost")
    run_M, label_K = (np.arange(len(cost_M)), candidates.index) if run is None else pd.factorize(candidates[run])
    first_K = np.unique(run_M, return_index=True)[1]
    if (uneven_M := cost_M != cost_M[first_K][run_M]).any():
        row = int(np.argmax(uneven_M))
        raise TableError(
            f"column {cost!r}, row {candidates.index[row]}: differs within run {candidates[run].iloc[row]!r}"
        )
    single = {
        name: candidates[(columns or {}).get(name, name)].to_numpy()[first_K]
        for name, value_M in inputs.items()
        if (value_M == value_M[first_K][run_M]).all()
    }
    value, gradient_BxP = _target(known, target)
    bread_KxBxPxR, meat_KxBxPxR, influence_KxP = known.of_runs(inputs, run_M)
    return Design(
        known,
        pd.DataFrame(single, index=pd.Index(label_K)),
        cost_M[first_K],
        repeats,
        value,
        gradient_BxP,
        bread_KxBxPxR,
        meat_KxBxPxR,
        influence_KxP,
    )


def _target(known: Knowledge, target: Target) -> tuple[float, np.ndarray]:
    """The target at the estimate, and its derivative by coordinates at every vector, [B, P]."""
    law = known.law
    if callable(target):
        function = target
    else:
        if set(target) != set(law.input_names):
            raise ValueError(f"target: inputs {sorted(target)} must be exactly {sorted(law.input_names)}")
        there = {name: x_1[0] for name, x_1 in law.read_inputs({n: np.array([v]) for n, v in target.items()}).items()}
        function = partial(_prediction, law.predict, there)

    def at(u_P: jax.Array) -> Any:
        parameters_P = coordinates.natural(law, u_P, jnp.asarray(known.reference_I))
        return function(dict(zip(law.parameter_names, parameters_P, strict=True)))

    with jax.enable_x64(True):
        value_B = np.asarray(jax.jit(jax.vmap(at))(known.u_BxP), dtype=np.float64)
        gradient_BxP = np.array(jax.jit(jax.vmap(jax.jacfwd(at)))(known.u_BxP))
    if value_B.shape != (len(known.u_BxP),) or not np.isfinite(gradient_BxP).all() or not gradient_BxP[0].any():
        raise ValueError("target: must be a scalar whose derivative by the parameters is finite, and not 0 throughout")
    return float(value_B[0]), gradient_BxP


def _prediction(predict: Callable[..., Any], inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> Any:
    return predict(parameters, inputs)


def _one(k: int, size: int) -> np.ndarray:
    return np.bincount([k], minlength=size)


def _width(error: Any, level: float) -> Any:
    return 2 * norm.ppf((1 + level) / 2) * error
