"""A run's section `packing`: what it refuses, by field, value and cure."""

from typing import Any

import pytest

from helpers import small_run
from scaling.fields import ConfigError

PACKING = {"method": "best_fit", "attention": "document", "metadata": {}, "documents": {}}
OBJECTIVE = {"domain_weights": {}, "reweighting": "none", "temperature": None, "uniform_for": None}


@pytest.mark.parametrize(("changes", "message"), [
    ({"method": "bestfit"}, r"packing\.method = 'bestfit': expected one of .*; did you mean 'best_fit'\?"),
    ({"attention": "documents"}, r"packing\.attention = 'documents': expected one of .*; did you mean 'document'\?"),
    ({"metadata": {"cod": "python.org"}}, r"packing\.metadata: unknown key 'cod'; did you mean 'code'\?"),
    ({"metadata": {"code": ""}}, r"packing\.metadata\.code = '': expected text without the character 0"),
    ({"metadata": {"code": "a\0b"}}, r"packing\.metadata\.code = 'a\\x00b': expected text without the character 0"),
    ({"metadata": {"code": 3}}, r"packing\.metadata = 3: expected str, not int"),
    ({"documents": {"prse": (0.0, 0.5)}}, r"packing\.documents: unknown key 'prse'; did you mean 'prose'\?"),
    ({"documents": {"code": (0.5, 0.5)}}, r"packing\.documents\.code = \(0\.5, 0\.5\): expected \(from, to\) with 0"),
    ({"documents": {"code": (0.5, 1.1)}}, r"packing\.documents\.code = \(0\.5, 1\.1\): expected \(from, to\) with 0"),
    ({"documents": {"code": (-0.1, float("nan"))}}, r"packing\.documents\.code = .*nan.*: expected \(from, to\) with"),
    ({"documents": {"code": (0.5,)}}, r"packing\.documents = .*: expected 2 values; add or drop some"),
    ({"padding": 1}, r"packing: unknown key 'padding'; use one of method, attention, metadata, documents"),
    ({"method": None}, r"packing\.method = None: expected str, not NoneType"),
])
def test_an_impossible_value_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_run(packing={**PACKING, **changes})


@pytest.mark.parametrize(("changes", "message"), [
    ({"mixer": {"name": "odm", "memory": 0.9}}, r"packing = 'best_fit': expected None with a mixer or an objective"),
    ({"objective": OBJECTIVE}, r"packing = 'best_fit': expected None with a mixer or an objective, which weigh whole"),
    ({"data.sequence": 32767}, r"data\.sequence = 32767: expected at most 32766 with packing; shorten it"),
])
def test_what_does_not_go_with_packing_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_run(packing=PACKING, **changes)


def test_the_order_of_domains_is_nothing_and_every_other_value_is_another_program() -> None:
    metadata = {"code": "a", "prose": "b"}
    run = small_run(packing={**PACKING, "metadata": metadata})
    assert small_run(packing={**PACKING, "metadata": dict(reversed(metadata.items()))}).run_id == run.run_id
    others = [{"method": "chop"}, {"attention": "window"}, {"metadata": {"code": "a"}}, {"documents": {"code": (0, 1)}}]
    runs = [run, small_run(), *(small_run(packing={**PACKING, "metadata": metadata, **other}) for other in others)]
    assert len({one.program for one in runs}) == len({one.run_id for one in runs}) == 6
