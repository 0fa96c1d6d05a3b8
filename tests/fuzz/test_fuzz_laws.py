"""Whatever a record of a law or of a fit holds: one that can be used, or a refusal that names the part."""

import json
from typing import Any

import numpy as np
import pytest
from fuzzing import JSON, LEAVES, NASTY_TEXT, TEXT, attempt, fuzzed, json_text, mutated
from hypothesis import given
from hypothesis import strategies as st

from scaling.fitting import Errors, Fit, Refusal
from scaling.fitting.objectives import huber
from scaling.fitting.points import Points
from scaling.laws.catalogue import FAMILIES, LAWS, law_of
from scaling.laws.law import Law, RecordError
from scaling.laws.size import CHINCHILLA

FIXED = {"name": "fixed", "law": {"name": "chinchilla"}, "fixed": {"E": 1.5}}
RECORDS: list[dict[str, Any]] = [
    {"name": "chinchilla"}, FIXED, {"name": "bnsl", "breaks": 2}, {"name": "data-mixing", "domains": ["a", "b"]},
    {"name": "pooled", "law": FIXED, "by": "domain", "labels": ["a", "b"], "shared": ["alpha"]},
    {"name": "data-filtering-pools", "pools": ["x", "y"]}]
M, B, SIZE = 6, 3, len(CHINCHILLA.parameters)


def made_fit() -> Fit:
    """A fit as it is kept, of made-up numbers."""
    numbers = np.random.default_rng(0)
    inputs = {name: numbers.uniform(1e6, 1e9, M) for name in CHINCHILLA.input_names}
    points = Points(inputs, numbers.uniform(2, 3, M), np.ones(M), np.full(M, np.nan), np.arange(M), np.zeros(M, int),
                    np.arange(M) > 4)
    parameters = {p.name: p.start[0] for p in CHINCHILLA.parameters}
    return Fit(CHINCHILLA, huber(), parameters, np.eye(SIZE), numbers.uniform(1, 2, (B, SIZE)), 0.1, 0.9, points,
               Errors(5, 0.1, 0.05), Errors(1, 0.2, 0.1), (Refusal("flat", "beta is flat", ("beta",)),))


RECORD = json.loads(made_fit().to_json())


def check_law(record: Any) -> None:
    law = attempt(lambda: law_of(record), RecordError)
    if law is not None:
        assert isinstance(law, Law)
        assert attempt(lambda: law_of(json.loads(json.dumps(law.record))), RecordError) is law


def check_fit(text: str) -> None:
    """A fit that is read can be described and written again."""
    fit = attempt(lambda: Fit.from_json(text), RecordError)
    if fit is not None:
        again = Fit.from_json(fit.to_json())
        assert again.to_json() == fit.to_json()
        assert fit.summary()


@fuzzed
@given(st.one_of(JSON, st.builds(lambda name, rest: {**rest, "name": name}, st.sampled_from([*LAWS, *FAMILIES]),
                                 st.dictionaries(st.sampled_from(["law", "fixed", "by", "labels", "shared", "breaks",
                                                                  "domains", "units", "schedules", "pools", "x"]),
                                                 JSON, max_size=3))))
def test_anything_for_a_law(record: Any) -> None:
    check_law(record)


@fuzzed
@given(st.sampled_from(RECORDS).flatmap(mutated))
def test_a_law_with_parts_replaced(record: Any) -> None:
    check_law(record)


@fuzzed
@given(st.one_of(JSON.map(json_text), TEXT))
def test_anything_for_a_fit(text: str) -> None:
    check_fit(text)


@fuzzed
@given(mutated(RECORD).map(json_text))
def test_a_fit_with_parts_replaced(text: str) -> None:
    check_fit(text)


@fuzzed
@given(mutated(RECORD, LEAVES, most=1).map(json_text))
def test_a_fit_with_one_value_replaced(text: str) -> None:
    check_fit(text)


def test_the_valid_records_are_read() -> None:
    for record in RECORDS:
        assert law_of(record).record == record
    assert Fit.from_json(made_fit().to_json()).to_json() == made_fit().to_json()


@pytest.mark.parametrize("name", [*NASTY_TEXT, "os.system", "scaling.laws.size.CHINCHILLA", "builtins.eval"], ids=ascii)
def test_a_record_that_names_a_module_or_callable_is_refused(name: str) -> None:
    with pytest.raises(RecordError, match=r"law .*: no law named"):
        law_of({"name": name})
    with pytest.raises(RecordError, match="law"):
        law_of({"name": "chinchilla", "make": name, "predict": name, "__class__": name})
    with pytest.raises(RecordError, match="no law named"):
        Fit.from_json(json.dumps(RECORD | {"law": {"name": name}}))


@pytest.mark.parametrize(("change", "message"), [
    ({"parameters": {**RECORD["parameters"], "E": "1.5"}}, r"E: expected a finite number, not '1\.5'"),
    ({"covariance": [[1.0]]}, r"covariance: expected the shape \(5, 5\), not \(1, 1\)"),
    ({"draws": [["x"] * SIZE]}, r"draws: expected numbers in lists of equal length"),
    ({"value": None}, r"value: expected a finite number, not None"),
    ({"points": {**RECORD["points"], "target": [None] * M}}, r"target: expected finite numbers, not nan"),
    ({"draws": [[1e999] * SIZE]}, r"draws: expected finite numbers, not inf"),
    ({"refusals": [{"kind": "flat", "reason": 3, "parameters": []}]}, r"reason: expected text, not 3"),
    ({"errors": {"points": -1, "rmse": 0.1, "relative": None}}, r"points: expected a whole number, not -1"),
    ({"points": {**RECORD["points"], "weight": [1.0]}}, r"weight: expected the shape \(6,\), not \(1,\)"),
    ({"points": {**RECORD["points"], "inputs": {}}}, r"points: expected the inputs N, D of law 'chinchilla'"),
    ({"objective": {"delta": 0, "scale": "log"}}, r"fit: not the record of one \(ValueError: delta: 0 must be > 0\)"),
    ({"law": {"name": "bnsl", "breaks": 10**9}}, r"law 'bnsl': breaks: 10{9} must be a whole number from 0 to 100"),
])
def test_what_was_found_in_a_fit_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordError, match=message):
        Fit.from_json(json.dumps(RECORD | change))
