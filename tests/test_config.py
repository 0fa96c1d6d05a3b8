"""A configuration is refused with the field, the value and the cure, or it is trained exactly as written."""

import dataclasses
import json
import math
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from ml_collections import ConfigDict

from configs.base import get_config
from helpers import small_config, small_run, windows_of
from scaling import config
from scaling.config import Duration, Parent, Run, run_from
from scaling.fields import TRACED, ConfigError
from scaling.sweeps.plan import groups

NAN, INF = math.nan, math.inf
ADAMLESS = {"optimizer.b1": None, "optimizer.b2": None, "optimizer.eps": None}
ADAFACTOR = {**ADAMLESS, "optimizer.name": "adafactor", "optimizer.memory": 0.8, "optimizer.form": "scaled"}
ADAMP = {"optimizer.name": "adamp", "optimizer.delta": 0.1, "optimizer.decay_ratio": 0.1}
ADEMAMIX = {"optimizer.name": "ademamix", "optimizer.b3": 0.99, "optimizer.alpha": 2.0}
CONDA = {"optimizer.name": "conda", "optimizer.scale": 0.25, "optimizer.every": 10}
GALORE = {**CONDA, "optimizer.name": "galore", "optimizer.rank": 2, "optimizer.form": "short"}
MUP = {"model.base": {"width": 8, "heads": 2}, "optimizer.width_exponent": 0.0}
SGD = {**ADAMLESS, "optimizer.name": "sgd", "optimizer.momentum": 0.9, "optimizer.form": "heavy_ball"}
UNIFIED = {"model.norm": "unified", "model.norm_warmup": 10}
SWATS = {"optimizer.name": "swats", "optimizer.tolerance": 1e-5}
WSD = {"schedule.name": "wsd", "schedule.decay": {"steps": 5}}
INFINITE = {"schedule.name": "infinite", "schedule.decay": {"steps": 5}, "schedule.level": 0.5,
            "schedule.cooldown": {"steps": 3}}
POWER = {"schedule.name": "power", "schedule.decay": {"steps": 5}, "schedule.onset": {"steps": 4},
         "schedule.exponent": -0.5}
TABLE = {"schedule.name": "table", "schedule.floor": 0.0, "schedule.warmup": {"steps": 0}}
BOTH = {"prose": 0.5, "code": 0.5}
THIRDS = {"prose": 1 / 3, "code": 1 / 3, "headers": 1 / 3}
OBJECTIVE = {"domain_weights": {}, "reweighting": "lin_upper", "temperature": 1.0, "uniform_for": {"steps": 3}}
AIOLI = {"name": "aioli", "rate": 0.2, "memory": 1.0, "own": 0.75, "every": 20, "interval": 1, "passes": 1,
         "windows": 4}
GROUPS = {"optimizer.groups": (("block_0/.*", "named"), (".*", "frozen"))}
PACKING = {"method": "best_fit", "attention": "document", "metadata": {}, "documents": {}}
SKILL_IT = {"name": "skill_it", "rate": 0.2, "graph": {"code": {"prose": 0.5}}, "every": 5, "window": 3, "windows": 4}

# What is changed in a valid configuration, and what the message must say: field, value, cure.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model.witdh": 64}, r"model: unknown key 'witdh'; did you mean 'width'\?"),
    ({"modle": {}}, r"config: unknown key 'modle'; did you mean 'model'\?"),
    ({"model": 3}, r"model = 3: expected a mapping with the keys width, depth"),
    ({"model.width": "64"}, r"model\.width = '64': expected int, not str; write an int"),
    ({"model.width": 64.5}, r"model\.width = 64\.5: expected int, not float; write an int"),
    ({"training.seed": True}, r"training\.seed = True: expected int, not bool; write an int"),
    ({"model.tied_head": 1}, r"model\.tied_head = 1: expected bool, not int; write a bool"),
    ({"schedule.peak": None}, r"schedule\.peak = None: expected float, not NoneType; write a float"),
    ({"model.width": 0}, r"model\.width = 0: expected 1 or more; use a positive number"),
    ({"model.heads": 3}, r"model\.heads = 3: expected a divisor of model\.width = 16; use one of \[1, 2, 4, 8, 16\]"),
    ({"model.heads": 16, "model.positions": "rotary"},
     r"model\.heads = 16: expected an even width a head for rotary positions .*; change heads or width"),
    ({"model.feedforward_ratio": 0.01}, r"model\.feedforward_ratio = 0\.01: expected a hidden width .* finite; use a "),
    ({"model.feedforward_ratio": INF}, r"model\.feedforward_ratio = inf: expected a hidden width .* finite; use a rat"),
    ({"model.feedforward_ratio": NAN}, r"model\.feedforward_ratio = nan: expected a hidden width .* finite; use a rat"),
    ({"model.activation": "geluu"}, r"model\.activation = 'geluu': expected one of .*; did you mean 'gelu'\?"),
    ({"data.domains": {}}, r"data\.domains = \{\}: expected at least one domain; name a domain"),
    ({"data.domains": "wheels:prose"}, r"data\.domains = 'wheels:prose': expected a mapping .*; write a dict"),
    ({"data.domains": ["prose"]}, r"data\.domains = \['prose'\]: expected a mapping .*; write a dict"),
    ({"data.domains": [("prose", "a"), ("prose", "b")]}, r"data\.domains = .*: expected each name once; .*'prose'"),
    ({"data.mixture": {"prose": 0.5, "code": 0.4}}, r"data\.mixture = .*0\.4.*: expected shares that sum to 1, not 0\.9"
     r"; scale the shares"),
    ({"data.mixture": {"proze": 1.0}}, r"data\.mixture: unknown key 'proze'; did you mean 'prose'\?"),
    ({"data.mixture": {"prose": 1.2, "code": -0.2}}, r"data\.mixture\.code = -0\.2: .* from 0 to 1; correct the share"),
    ({"data.mixture": {"prose": NAN}}, r"data\.mixture\.prose = nan: expected a share from 0 to 1; correct the share"),
    ({"data.mixture": "prose"}, r"data\.mixture = 'prose': expected a mapping from domain names; write a dict"),
    ({"data.mixture": [(0.5, {"prose": 1.0})]}, r"data\.mixture = \[0\.5\]: expected phase starts that rise from 0"),
    ({"data.mixture": [(0.0, {"prose": 1.0}), (NAN, BOTH), (0.5, BOTH)]}, r"data\.mixture = .*nan.*; sort the phases"),
    ({"data.mixture": [(0.0, {"prose": 1.0}, 3)]}, r"data\.mixture = .*: expected shares by domain, or phases"),
    ({"data.unique_tokens": {"prose": 15}}, r"data\.unique_tokens\.prose = 15: expected at least one window of "
     r"data\.sequence = 16 tokens; raise the limit"),
    ({"data.unique_tokens": {"prse": 64}}, r"data\.unique_tokens: unknown key 'prse'; did you mean 'prose'\?"),
    ({"data.batch": 0}, r"data\.batch = 0: expected 1 or more; use a positive number"),
    ({"optimizer.b2": 1.0}, r"optimizer\.b2 = 1\.0: expected a number in \[0, 1\); use"),
    ({"optimizer.eps": 0.0}, r"optimizer\.eps = 0\.0: expected positive and finite; use 1e-8"),
    ({"optimizer.eps": INF}, r"optimizer\.eps = inf: expected positive and finite; use 1e-8"),
    ({"optimizer.weight_decay": -0.1}, r"optimizer\.weight_decay = -0\.1: expected finite and not negative; use 0"),
    ({"optimizer.weight_decay": NAN}, r"optimizer\.weight_decay = nan: expected finite and not negative; use 0"),
    ({"optimizer.clip_norm": 0.0}, r"optimizer\.clip_norm = 0\.0: expected positive or None; use 1\.0"),
    ({"optimizer.name": "admw"}, r"optimizer\.name = 'admw': expected one of adafactor, .*; did you mean 'adamw'\?"),
    ({"optimizer.momentum": 0.9}, r"optimizer\.momentum = 0\.9: expected None for adamw, which takes b1, b2, eps; l"),
    ({"optimizer.name": "soap"}, r"optimizer\.every = None: expected a value for soap, which takes .*every; set it"),
    ({**SGD, "optimizer.form": "adam"}, r"optimizer\.form = 'adam': expected one of heavy_ball, nesterov for sgd; c"),
    ({**CONDA, "optimizer.every": 0}, r"optimizer\.every = 0: expected 1 or more; use a positive number"),
    ({**CONDA, "optimizer.scale": 0.0}, r"optimizer\.scale = 0\.0: expected positive and finite; correct it"),
    ({"optimizer.name": "schedule_free", "optimizer.b1": 0.0}, r"optimizer\.b1 = 0\.0: expected above 0 for schedul"),
    ({"optimizer.name": "layca", "optimizer.momentum": 0.9, "optimizer.form": "sgd"},
     r"optimizer\.weight_decay = 0\.1: expected 0 for layca, which keeps the norms of what it trains; use 0"),
    ({"optimizer.groups": [("(", "named")]}, r"optimizer\.groups = '\(': expected a regular expression .*; cor"),
    ({"optimizer.groups": [(".*", "lion")]}, r"optimizer\.groups = 'lion': expected one of named, adamw, frozen; c"),
    ({**SGD, "optimizer.groups": [(".*", "adamw")]}, r"optimizer\.groups = 'adamw': expected named or frozen with sg"),
    ({**GROUPS, "optimizer.group_rates": (1.0,)}, r"optimizer\.group_rates = \(1\.0,\): expected a factor for each"),
    ({"optimizer.group_decays": (1.0,)}, r"optimizer\.group_decays = \(1\.0,\): expected a factor for each of .*leave"),
    ({"schedule.peak": -1e-3}, r"schedule\.peak = -0\.001: expected finite and not negative; use a rate"),
    ({"schedule.peak": NAN}, r"schedule\.peak = nan: expected finite and not negative; use a rate"),
    ({"schedule.floor": 1.5}, r"schedule\.floor = 1\.5: expected a share of the peak from 0 to 1; use 0 or 0\.1"),
    ({"schedule.name": "wsd"}, r"schedule\.decay = None: expected a duration for wsd .*; set or remove"),
    ({"schedule.decay": {"steps": 5}}, r"schedule\.decay = .*steps=5.* None for every other schedule; set or remove"),
    ({"schedule.name": "constant"}, r"schedule\.floor = 0\.1: expected 1\.0 for a constant schedule.*; set floor to 1"),
    ({"schedule.peak": 0.0, "optimizer.decay_convention": "independent"},
     r"schedule\.peak = 0\.0: expected a positive peak .*'independent'.*; raise the peak or use 'coupled'"),
    ({"training.duration": {}}, r"training\.duration: duration = \{\}: expected exactly one unit; give one of steps, "),
    ({"schedule.warmup": {"steps": 1, "tokens": 9}}, r"schedule\.warmup: duration = \{'steps': 1, 'tokens': 9\.0\}: "
     r"expected exactly one unit; give one of steps, tokens, epochs"),
    ({"training.duration": {"steps": -1}}, r"training\.duration: duration\.steps = -1: .* not negative; use 0 or more"),
    ({"training.duration": {"tokens": INF}}, r"training\.duration: duration\.tokens = inf: expected finite"),
    ({"training.duration": {"step": 5}}, r"training\.duration: unknown key 'step'; did you mean 'steps'\?"),
    ({"training.duration": 500}, r"training\.duration = 500: expected a mapping with the keys steps, tokens, epochs"),
    ({"training.seed": -1}, r"training\.seed = -1: expected from 0 to .*; use a small whole number"),
    ({"training.accumulation": 3}, r"training\.accumulation = 3: expected a divisor of data\.batch = 4; change one"),
    ({"training.z_loss": -1.0}, r"training\.z_loss = -1\.0: expected finite and not negative; use 0 for none, or 1e-4"),
    ({"training.z_loss": INF}, r"training\.z_loss = inf: expected finite and not negative; use 0 for none, or 1e-4"),
    ({"training.diverged_above": NAN}, r"training\.diverged_above = nan: expected positive; use 20 nats"),
    ({"training.dtype": "float16"}, r"training\.dtype = 'float16': expected one of .*; did you mean 'bfloat16'\?"),
    ({"evaluation.steps": (1, 5)}, r"evaluation = \{'points': 3, 'steps': \(1, 5\)\}: expected exactly one of points"
     r" and steps; set the other to None"),
    ({"evaluation.points": None}, r"evaluation = \{'points': None, 'steps': None\}: expected exactly one"),
    ({"evaluation.points": 1}, r"evaluation\.points = 1: expected 2 or more; use 2"),
    ({"evaluation.points": None, "evaluation.steps": (5, 1)}, r"evaluation\.steps = \(5, 1\): .* sort them, drop rep"),
    ({"evaluation.points": None, "evaluation.steps": 5}, r"evaluation\.steps = 5: expected a sequence .* write a tupl"),
    ({"evaluation.windows": 0}, r"evaluation\.windows = 0: expected 1 or more; use 64"),
    ({"parent": {"run_id": "abc", "at": {"steps": 5}, "optimizer": "kept"}},
     r"parent\.optimizer = 'kept': expected one of keep, reset; did you mean 'keep'\?"),
    ({"mixer": {"name": "odm", "memory": 0.9, "rate": 0.1}}, r"mixer\.rate = 0\.1: expected None for odm, which "
     r"takes memory; leave it out"),
    ({"mixer": {"name": "odm"}}, r"mixer\.memory = None: expected a value for odm, which takes memory; set it"),
    ({"mixer": {"name": "aiolli"}}, r"mixer\.name = 'aiolli': expected one of .*; did you mean 'aioli'\?"),
    ({"mixer": {**AIOLI, "own": 1.2}}, r"mixer\.own = 1\.2: expected a share from 0 to 1; correct it"),
    ({"mixer": {**AIOLI, "every": 0}}, r"mixer\.every = 0: expected 1 or more; use a positive number"),
    ({"mixer": {**AIOLI, "every": 3}, "data.mixture": THIRDS}, r"mixer\.every = 3: expected rounds longer than"),
    ({"mixer": AIOLI, "data.mixture": [(0.0, BOTH), (0.5, BOTH)]}, r"data\.mixture = .*: expected one phase with a mi"),
    ({"mixer": {**SKILL_IT, "graph": {"cod": {"prose": 1.0}}}}, r"mixer\.graph: unknown key 'cod'; did you mean 'code"),
    ({"mixer": {"name": "doremi", "rate": 1.0, "smoothing": 1e-4}}, r"parent = None: expected the reference run of do"),
    ({"mixer": {"name": "doge", "rate": 20.0}, "objective": OBJECTIVE, "data.mixture": THIRDS},
     r"objective = .*: expected None with the mixer doge, .*; leave it out, or use another mixer"),
    ({"mixer": {"name": "doge", "rate": 20.0}, "data.mixture": BOTH}, r"data\.mixture, data\.batch = .*: expected equ"),
    ({"mixer": AIOLI, "data.mixture": BOTH}, r"data\.mixture = .*: expected a share for every domain with aioli"),
    ({"mixer": {**AIOLI, "own": 1 / 3}, "data.mixture": THIRDS}, r"mixer\.own = 0\.333.*: expected another share"),
    ({"mixer": AIOLI, "training.accumulation": 2}, r"training\.accumulation = 2: expected 1 with a mixer or an object"),
    ({"objective": {**OBJECTIVE, "temperature": 0.0}}, r"objective\.temperature = 0\.0: expected positive and finite"),
    ({"objective": {**OBJECTIVE, "reweighting": "none"}}, r"objective\.temperature = 1\.0: expected None for reweight"),
    ({"objective": {**OBJECTIVE, "domain_weights": {"prose": -1.0}}}, r"domain_weights\.prose = -1\.0: expected finit"),
    ({"objective": {**OBJECTIVE, "domain_weights": {"cod": 1.0}}}, r"objective\.domain_weights: unknown key 'cod'; di"),
    # Known only with the corpus or the other runs: refused by the planner, before any compute.
    ({"training.duration": {"steps": 0}}, r"training\.duration = .*steps=0.*: expected 1 step or more; lengthen it"),
    ({"training.duration": {"epochs": 1}, "data.mixture": BOTH},
     r"duration\.epochs = 1\.0: expected steps or tokens, since .* mixture .*; draw from one domain alone, or change"),
    ({"schedule.warmup": {"steps": 21}}, r"schedule\.warmup \+ schedule\.decay = 21 \+ 0 steps: expected at most the "
     r"run's 20 steps; shorten them or lengthen training\.duration"),
    ({**WSD, "schedule.warmup": {"steps": 16}}, r"schedule\.warmup \+ schedule\.decay = 16 \+ 5 steps: .* 20 steps; s"),
    ({**WSD, "schedule.decay": {"steps": 0}}, r"schedule\.decay = 0 steps: expected 1 step or more for wsd; lengthen"),
    ({"schedule.name": "inverse_sqrt", "schedule.warmup": {"steps": 0}},
     r"schedule\.warmup = 0: expected 1 step or more for inverse_sqrt.*; give a warm-up"),
    ({"evaluation.points": None, "evaluation.steps": (5, 21, 30)},
     r"evaluation\.steps = \[21, 30\]: expected steps up to the last, 20; drop them or train longer"),
    ({"data.unique_tokens": {"prose": 16_001}}, r"unique_tokens\.prose = 16001: expected 16 .* to 16000 .*; change th"),
    ({"parent": {"run_id": "abc", "at": {"steps": 5}, "optimizer": "keep"}},
     r"parent\.run_id = 'abc': expected a run of this sweep .*; add the parent to the sweep"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[" ".join(map(str, c.items()))[:60] for c, _ in REFUSED])
def test_bad_configuration_is_refused_with_field_value_and_cure(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):  # noqa: PT012  either step may refuse, no step computes
        run = run_from(small_config(**changes))
        groups([run], {run.program: windows_of(run)})


def test_a_domain_shorter_than_a_window_is_refused_only_where_it_is_drawn() -> None:
    run = small_run()
    short = dataclasses.replace(windows_of(run), by_domain=(("code", 9), ("headers", 9), ("prose", 0)))
    with pytest.raises(ConfigError, match=r"data\.sequence = 16: expected at most the training text of domain 'prose'"):
        groups([run], {run.program: short})
    other = small_run(**{"data.mixture": {"code": 1.0}})
    assert len(groups([other], {other.program: short})) == 1


def test_every_missing_key_is_named() -> None:
    values = small_config()
    del values["model"]["width"], values["model"]["norm"]
    with pytest.raises(ConfigError, match=r"model = \['activation'.*: expected every key of .*; add width, norm"):
        run_from(values)


def test_config_dict_and_plain_dict_give_the_same_run() -> None:
    assert run_from(get_config()) == run_from(get_config().to_dict()) == run_from(ConfigDict(get_config().to_dict()))


# One changed value a field: it must be valid beside the values of `small_run`.
CHANGED: dict[str, Any] = {
    "model.width": 32, "model.depth": 2, "model.heads": 4, "model.feedforward_ratio": 2.0, "model.activation": "relu2",
    "model.positions": "rotary", "model.norm": "layernorm", "model.tied_head": False, "model.qk_norm": True,
    "model.base": {"width": 8, "heads": 2}, "model.placement": "post", "model.depth_scaled_init": False,
    "model.centred": True, "model.norm_warmup": 20, "model.filter_outliers": True, "model.attention": "lssa",
    "data.domains": {"prose": "wheels:prose"}, "data.tokenizer": "bpe:512", "data.sequence": 32, "data.batch": 8,
    "data.mixture": {"code": 1.0}, "data.unique_tokens": {"prose": 64},
    "optimizer.name": "adopt", "optimizer.b1": 0.8, "optimizer.b2": 0.99, "optimizer.eps": 1e-6,
    "optimizer.weight_decay": 0.0, "optimizer.decay_convention": "independent", "optimizer.decay_on": "all",
    "optimizer.clip_norm": None, "optimizer.momentum": 0.8, "optimizer.memory": 0.7, "optimizer.b3": 0.999,
    "optimizer.alpha": 3.0, "optimizer.scale": 0.5, "optimizer.delta": 0.2, "optimizer.decay_ratio": 0.0,
    "optimizer.tolerance": 0.0, "optimizer.every": 5, "optimizer.rank": 4, "optimizer.form": "nesterov",
    "optimizer.groups": ((".*", "named"),), "optimizer.group_rates": (1.0, 2.0), "optimizer.group_decays": (0.0, 1.0),
    "optimizer.width_exponent": 0.5, "schedule.name": "linear", "schedule.peak": 1e-3, "schedule.warmup": {"steps": 3},
    "schedule.floor": 0.0, "schedule.decay": {"steps": 3}, "schedule.level": 0.6, "schedule.cooldown": {"steps": 4},
    "schedule.shape": "1-sqrt", "schedule.onset": {"steps": 6}, "schedule.exponent": -0.7,
    "schedule.points": ((0.0, 1.0), (1.0, 0.0)), "schedule.values": (0.5,) * 20,
    "schedule.low_momentum": 0.8,
    "training.duration": {"steps": 30}, "training.seed": 1,
    "training.dtype": "float64", "training.accumulation": 2, "training.z_loss": 1e-4, "training.diverged_above": 9.0,
    "evaluation.points": 4, "evaluation.steps": (3, 7), "evaluation.windows": 8,
    "parent": {"run_id": "abc", "at": {"steps": 2}, "optimizer": "keep"},
    "mixer": {"name": "odm", "memory": 0.9}, "objective": OBJECTIVE, "packing": PACKING,
    "diagnostics": {"layers": True, "activations": False, "spectra": 0},
}
BEFORE = {"schedule.decay": WSD, "schedule.level": INFINITE, "schedule.cooldown": INFINITE, "schedule.shape": WSD,
          "schedule.onset": POWER, "schedule.exponent": POWER,
          "schedule.points": {**TABLE, "schedule.points": ((0.0, 1.0), (1.0, 0.5))},
          "schedule.values": {**TABLE, "schedule.values": (1.0,) * 20},
          "schedule.low_momentum": {"schedule.name": "one_cycle", "schedule.level": 0.1,
                                    "schedule.decay": {"steps": 2}},
          "evaluation.steps": {"evaluation.points": None, "evaluation.steps": (3,)},
          "model.base": {"optimizer.weight_decay": 0.0}, "optimizer.width_exponent": MUP,
          "model.norm_warmup": UNIFIED, "model.filter_outliers": UNIFIED,
          "optimizer.momentum": SGD, "optimizer.memory": ADAFACTOR, "optimizer.b3": ADEMAMIX,
          "optimizer.alpha": ADEMAMIX, "optimizer.scale": CONDA, "optimizer.delta": ADAMP,
          "optimizer.decay_ratio": ADAMP, "optimizer.tolerance": SWATS, "optimizer.every": CONDA,
          "optimizer.rank": GALORE, "optimizer.form": SGD, "optimizer.group_rates": GROUPS,
          "optimizer.group_decays": GROUPS}


def leaves(cls: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, static or traced) of every field of a run; a traced section is one field."""
    for field in dataclasses.fields(cls):
        nested = getattr(config, str(field.type), None)
        vary = field.metadata["vary"]
        if dataclasses.is_dataclass(nested) and vary == "static":
            yield from leaves(nested, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", vary


FIELDS = dict(leaves(Run))


def changed(field: str) -> tuple[Run, Run]:
    """A run, and the same with one field changed."""
    before = small_run(**BEFORE.get(field, {}))
    return before, small_run(**{**BEFORE.get(field, {}), field: CHANGED[field]})


def test_what_belongs_to_a_program_is_as_agreed() -> None:
    """A field that moves here makes every value of a sweep compile anew; one that leaves must be an array."""
    assert {field for field, vary in FIELDS.items() if vary == "static"} == {
        *(field for field in FIELDS if field.startswith("model.")), "data.domains", "data.tokenizer", "data.sequence",
        "data.batch", "optimizer.name", "optimizer.decay_on", "optimizer.every", "optimizer.rank", "optimizer.form",
        "optimizer.groups", "training.dtype", "training.accumulation",
        "evaluation.windows", "mixer", "objective", "packing", "diagnostics"}


@pytest.mark.parametrize(("section", "before", "changes"), [
    ("mixer", AIOLI, {"name": "skill_it", "every": 30, "interval": 2, "passes": 2, "windows": 8}),
    ("objective", OBJECTIVE, {"reweighting": "extremes"}),
    ("packing", PACKING, {"method": "chop", "attention": "window", "metadata": {"code": "python.org"},
                          "documents": {"code": (0.0, 0.5)}}),
])
def test_fields_of_optional_sections_belong_to_the_program_as_agreed(section: str, before: dict, changes: dict) -> None:
    """`changes`: of every static field; all others are traced."""
    start = small_run(**{section: before, "data.mixture": THIRDS})
    traced = {"rate": 0.3, "memory": 0.5, "own": 0.6, "domain_weights": {"code": 2.0}, "temperature": 0.5,
              "uniform_for": {"steps": 7}}
    for name in before:
        if name in changes:
            value = SKILL_IT if name == "name" else {**before, name: changes[name]}
            assert small_run(**{section: value, "data.mixture": THIRDS}).program != start.program
        else:
            after = small_run(**{section: {**before, name: traced[name]}, "data.mixture": THIRDS})
            assert after.program == start.program
            assert after.run_id != start.run_id


def test_a_run_without_optional_sections_keeps_the_id_it_had_before_they_were() -> None:
    assert small_run(mixer=None, objective=None, packing=None).run_id == small_run().run_id


def test_every_field_of_a_run_has_a_changed_value() -> None:
    assert FIELDS.keys() == CHANGED.keys()


@pytest.mark.parametrize("field", FIELDS)
def test_a_static_field_changes_the_program_and_a_traced_one_does_not(field: str) -> None:
    before, after = changed(field)
    assert (before.program == after.program) == (FIELDS[field] == "traced")
    if before.program == after.program:
        assert hash(before.program) == hash(after.program)
        section, _, name = field.partition(".")
        value = getattr(before.program, section)
        assert (getattr(value, name) if name else value) is TRACED


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_changes_the_run_id(field: str) -> None:
    before, after = changed(field)
    assert before.run_id != after.run_id
    assert before.flat() != after.flat()


def test_parent_fields_change_the_run_id() -> None:
    parents = [Parent(run_id, Duration(steps=at), optimizer)
               for run_id in ("abc", "abd") for at in (2, 3) for optimizer in ("keep", "reset")]
    assert len({dataclasses.replace(small_run(), parent=parent).run_id for parent in parents}) == 8


def test_run_id_of_the_base_configuration_is_stable() -> None:
    """Update the id only with a change of meaning: a field added, removed, renamed, or a changed value in
    configs/base.py. Anything else that moves it makes every finished run of every store train again.
    """
    assert run_from(get_config()).run_id == "4c9ba8b4c543"


def test_run_id_depends_on_no_run_before_nor_on_where_its_words_come_from() -> None:
    """1, 1.0 and True are equal, and a word read from JSON is another object than the default that it equals."""
    changes = [{"training": {"z_loss": z_loss, "seed": seed}, "model": {"tied_head": tied, "feedforward_ratio": ratio}}
               for z_loss in (0.0, 1.0) for seed in (0, 1) for tied in (False, True) for ratio in (1.0, 2.0, 4.0)]

    def ids(order: int) -> dict[str, str]:
        found = {}
        for change in changes[::order]:
            values = get_config().to_dict()
            for section, given in change.items():
                values[section] |= given
            run = run_from(values)
            found[json.dumps(change)] = run.run_id
            assert run_from(json.loads(json.dumps(run.dump()))).run_id == run.run_id
        return found

    assert ids(1) == ids(-1)
    assert len(set(ids(1).values())) == len(changes)
    code = ("import json, sys; from scaling.config import run_from;"
            "print(run_from(json.load(sys.stdin)).run_id)")
    dumped = json.dumps(run_from(get_config()).dump())
    ended = subprocess.run([sys.executable, "-c", code], input=dumped, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == run_from(get_config()).run_id


def shuffled(value: Any, order: random.Random) -> Any:
    """The same nested mapping with its keys in another order."""
    if not isinstance(value, dict):
        return value
    keys = list(value)
    order.shuffle(keys)
    return {key: shuffled(value[key], order) for key in keys}


@pytest.mark.parametrize("seed", range(5))
def test_key_order_changes_nothing(seed: int) -> None:
    values = small_config(**{"data.mixture": BOTH, "data.unique_tokens": {"prose": 64, "code": 64}})
    run, again = run_from(values), run_from(shuffled(values, random.Random(seed)))
    assert again == run
    assert again.run_id == run.run_id
    assert again.program == run.program


def test_steps_and_equal_tokens_are_one_run() -> None:
    tokens = {"training.duration": {"tokens": 20 * 64}, "schedule.warmup": {"tokens": 100.0}}  # 100 / 64: 2 steps
    assert small_run(**tokens).run_id == small_run().run_id
    assert small_run(**{"training.duration": {"tokens": 20 * 64 + 1}}).run_id != small_run().run_id


def test_zero_has_one_sign() -> None:
    assert small_run(**{"optimizer.weight_decay": -0.0}).flat()["optimizer.weight_decay"].hex() == "0x0.0p+0"


def test_flat_names_every_leaf_once() -> None:
    flat = small_run(**{"data.mixture": BOTH}).flat()
    assert flat["model.width"] == 16
    assert flat["training.duration.steps"] == 20
    assert flat["training.duration.tokens"] is None
    assert json.loads(flat["data.mixture"]) == [[0.0, [["code", 0.5], ["prose", 0.5]]]]
    assert flat["parent"] is None
