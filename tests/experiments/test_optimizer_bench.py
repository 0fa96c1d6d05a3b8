"""The bench against a store with known speeds: targets, times, rankings, pairs, halves; AlgoPerf's protocol; refusals.
"""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import optimizer_bench as config
from experiments import bench_design, bench_runs, optimizer_bench, optimizer_bench_page
from experiments.algoperf import StudyTimes, median, scores
from experiments.bench_design import EXTERNAL, RETRAINED, SELF, Range, Settings, points
from experiments.bench_runs import SECONDS, STEPS
from experiments.optimizer_bench import Findings
from experiments.optimizer_bench_trials import ROUNDS, time_in_turn, to_time
from experiments.pairwise import across, agreement, halves, pairs, speed_up, speeds
from helpers import write_text
from scaling import fields
from scaling.config import run_from
from scaling.fields import ConfigError
from scaling.store import Store
from scaling.sweeps.sweep import Sweep
from scaling.sweeps.workbench import Workbench

INF = np.inf
SPEED = {"AdamW": 1.0, "RAdam": 1.0, "Muon": 1.6, "SOAP": 1.35, "Lion": 0.6, "AdamW, defaults": 0.8,
         "Schedule-Free, defaults": 1.1}
STEP_SECONDS = {"soap": 4.0}  # others: 1


def study() -> dict:
    """The configuration's study, cut down to the submissions with a known speed."""
    values = config.get_config().study.to_dict()
    for ruleset in ("external", "self_tuning"):
        values[ruleset] = tuple(each for each in values[ruleset] if each["name"] in SPEED)
    return {**values, "baselines": ("AdamW",), "digits": values["digits"][:2], "horizon": 180, "every": 6, "trials": 2,
            "tuning_trials": 4, "retrained": 5, "draws": 300}


def write_store(folder, s: Settings, noise: float = 0.05) -> Store:
    """Losses hit / step, so that a target of 1 is reached at step `hit`: two thirds of the budget over the speed, times
    e^noise; the second trial of a study is half as fast. Retrained: 1 at the median of the seeds.
    """
    rng, runs, curves, told = np.random.default_rng(0), [], [], []
    for task in s.workloads:
        best = bench_design.tuning(s)[2]
        entries = [*bench_design.tuning(s), *bench_design.scored(s), *bench_design.retrained(s, best)]
        for at in entries:
            run_id = f"{task.name}-{at.part}-{at.submission}-{at.seed}"
            if at.part == RETRAINED:
                hit = s.horizon * (0.9 + 0.05 * at.study)
            elif at.part in (EXTERNAL, SELF):
                hit = 160 / SPEED[at.submission] * (1 + at.trial) * np.exp(rng.normal(scale=noise))
            else:
                hit = s.horizon * (1.0 if at.trial == best.trial else 1.5)
            steps = np.arange(s.every, s.steps(at.part) + 1, s.every)
            digits = hasattr(task, "workload")
            runs.append({
                "run_id": run_id, "status": "done", "training.seed": at.seed, "optimizer.name": at.optimizer.name,
                "optimizer.form": at.optimizer.form, "schedule.peak": at.schedule.peak, "flops": 1e6,
                "wall_seconds": 0.1, "device": "test", "steps_trained": steps[-1],
                **({f"workload.{name}": value for name, value in fields.flatten(task.workload).items()} if digits else
                   {"data.mixture": json.dumps(fields.phases(task.mixture, ""))})})
            domain = task.workload.model if digits else task.domain
            curves.append(pd.DataFrame({"run_id": run_id, "step": steps, "split": "validation", "domain": domain,
                                        "loss": np.round(hit / steps, 4)}))
            if at.part in (EXTERNAL, SELF) and at.study == at.trial == 0:
                value = STEP_SECONDS.get(at.optimizer.name, 1.0)
                told += [{"run_id": run_id, "step": call, "name": "step_seconds", "value": value} for call in range(3)]
    store = Store(folder)
    store.write("runs", "all", pd.DataFrame(runs))
    store.write("curves", "all", pd.concat(curves, ignore_index=True))
    store.write("diagnostics", "all", pd.DataFrame(told))
    return store


@pytest.fixture(scope="module")
def s() -> Settings:
    return bench_design.settings_of(study())


@pytest.fixture(scope="module")
def store(tmp_path_factory, s: Settings) -> Store:
    return write_store(tmp_path_factory.mktemp("store"), s)


@pytest.fixture(scope="module")
def found(store: Store) -> Findings:
    return optimizer_bench.analyse(store, study())


def test_the_target_is_the_median_over_fresh_seeds_of_the_best_tuning_trial(found: Findings) -> None:
    assert found.targets.baseline.tolist() == ["AdamW"] * 4
    assert found.targets.trial.tolist() == [2] * 4
    np.testing.assert_allclose(found.targets.target, 1.0)
    np.testing.assert_allclose(found.targets[["low", "high"]], [[0.9, 1.1]] * 4)


def test_a_time_is_that_of_the_first_evaluation_at_the_target_of_the_best_trial(found: Findings) -> None:
    own = found.trials[(found.trials.part == EXTERNAL) & (found.trials.submission == "Muon")]
    assert own[STEPS].between(80, 260).all()
    assert (own[STEPS] % 6 == 0).all()
    times = found.rulesets[EXTERNAL, STEPS].times
    place = times.submissions.index("Muon")
    best = own[own.trial == 0].pivot(index="workload", columns="study", values=STEPS).loc[list(times.workloads)]
    np.testing.assert_array_equal(times.seconds_SxWxK[place], best)


def test_known_speeds_come_back_in_steps_and_in_device_time(found: Findings) -> None:
    for unit, slow in ((STEPS, 1.0), (SECONDS, 4.0)):
        ranking = found.rulesets[EXTERNAL, unit].ranking.set_index("submission")
        for name in ("RAdam", "Muon"):
            assert ranking.speed_up[name] == pytest.approx(SPEED[name], rel=0.05)
        assert ranking.speed_up["SOAP"] == pytest.approx(1.35 / slow, rel=0.05)
        assert ranking.low["Muon"] < 1.6 < ranking.high["Muon"]
    assert found.rulesets[EXTERNAL, STEPS].ranking.submission.tolist()[:2] == ["Muon", "SOAP"]
    assert found.rulesets[EXTERNAL, STEPS].ranking.submission.iloc[-1] == "Lion"  # past the budget: it never arrives
    assert found.rulesets[EXTERNAL, STEPS].ranking.reached.iloc[-1] == 0


def test_pairs_of_different_speed_are_decided_and_twins_are_not(found: Findings) -> None:
    table = found.rulesets[EXTERNAL, STEPS].pairs
    decided = {frozenset(pair): row for *pair, row in zip(table["first"], table["second"], table.decided_here,
                                                                 strict=True)}
    assert len(decided) == 10
    assert not decided[frozenset(("AdamW", "RAdam"))]
    assert sum(decided.values()) == 9
    assert 1 <= table.decided.sum() < 9, "two bases of workloads tell little of others"
    assert all(SPEED[first] >= SPEED[second] for first, second in zip(table["first"], table["second"], strict=True))


def test_claims_say_what_the_store_holds(found: Findings) -> None:
    by_text = {claim.statement: claim for claim in found.claims}
    halves_agree = [claim for text, claim in by_text.items() if text.startswith("Two halves")]
    assert [claim.verdict for claim in halves_agree] == ["reproduced"] * 2
    assert halves_agree[1].n == 9
    fastest = by_text["The fastest optimizer on all workloads, in steps, is one of matrices"]
    assert fastest.verdict == "reproduced"
    assert fastest.value == pytest.approx(1.6, rel=0.05)
    untuned = by_text["Untuned, Schedule-Free AdamW reaches the target in fewer steps than AdamW"]
    assert untuned.verdict == "reproduced"
    assert untuned.value == pytest.approx(1.1 / 0.8, rel=0.1)


def twins(effects: float, groups: np.ndarray, seed: int) -> StudyTimes:
    """Twelve submissions alike but for noise, and for effects of each group of workloads on each of them."""
    rng = np.random.default_rng(seed)
    own_SxW = rng.normal(scale=effects, size=(12, groups.max() + 1))[:, groups]
    seconds = np.exp(own_SxW[:, :, None] + rng.normal(scale=0.3, size=(12, len(groups), 6)))
    return StudyTimes(tuple(map(str, range(12))), tuple(map(str, range(len(groups)))), groups, seconds)


def test_halves_fall_out_over_the_order_of_twins() -> None:
    times = twins(0.0, np.arange(6), 1)
    table = pairs(speeds(times, 400, 0), 0.95)
    assert len(table) == 66
    assert (agreement(times, table) < 0.8).all()


@pytest.mark.parametrize(("effects", "column", "most"), [(0.0, "decided_here", 5), (0.3, "decided", 5)])
def test_twins_are_decided_as_seldom_as_the_level_says(effects: float, column: str, most: int) -> None:
    """Of 40 tables about 2 may hold a wrong decision; 6 or more come by chance once in 70 times."""
    wrong = [pairs(speeds(twins(effects, np.arange(8) // 2, seed), 200, 0), 0.95)[column].any() for seed in range(40)]
    assert sum(wrong) <= most


def test_effects_of_workloads_are_real_on_these_workloads() -> None:
    table = pairs(speeds(twins(0.6, np.arange(8) // 2, 0), 200, 0), 0.95)
    assert table.decided_here.sum() > 10
    assert table.decided.sum() < table.decided_here.sum() / 4


def test_speeds_are_clipped_and_two_failures_tell_nothing() -> None:
    seconds = np.array([[[1.0] * 2, [1.0] * 2], [[100.0] * 2, [INF] * 2], [[INF] * 2, [INF] * 2]])
    found = speeds(StudyTimes(("a", "b", "c"), ("v", "w"), np.arange(2), seconds), 50, 0)
    np.testing.assert_allclose(np.exp(found.log_SxSxW[0]), [[1, 1], [4, 4], [4, 4]])
    np.testing.assert_allclose(np.exp(found.log_SxSxW[1, 2]), [4, 1])
    assert speed_up(found, "b", "c", 0.95)[1].value == pytest.approx(2)
    np.testing.assert_allclose(found.log_SxSxW, -np.swapaxes(found.log_SxSxW, 0, 1))


def test_halves_are_every_split_once() -> None:
    times = StudyTimes(("a",), ("w",), np.arange(1), np.arange(6.0)[None, None])
    splits = halves(times)
    assert len(splits) == 10
    for first, second in splits:
        both = np.concatenate([half.seconds_SxWxK[0, 0] for half in (first, second)])
        assert sorted(both.tolist()) == list(range(6))
    with pytest.raises(ConfigError, match="studies = 3: expected an even number"):
        halves(dataclasses.replace(times, seconds_SxWxK=np.ones((1, 1, 3))))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.floats(1, 50), min_size=3, max_size=3), min_size=1, max_size=4), st.floats(1, 50))
def test_the_protocol_of_the_score(times_SxW: list[list[float]], faster: float) -> None:
    """Alone, a submission scores 1 where it finishes; one more can only lower the others."""
    seconds = np.array(times_SxW)[..., None]
    names, workloads = tuple(map(str, range(len(seconds) + 1))), ("u", "v", "w")
    alone = StudyTimes(names[:1], workloads, np.arange(3), seconds[:1])
    assert scores(alone)[0] == pytest.approx(1)
    before = scores(StudyTimes(names[:-1], workloads, np.arange(3), seconds))
    more = np.concatenate([seconds, np.full((1, 3, 1), faster)])
    assert (scores(StudyTimes(names, workloads, np.arange(3), more))[:-1] <= before + 1e-12).all()


@pytest.mark.parametrize(("failed", "solved"), [(0, True), (1, True), (2, False), (3, False)])
def test_the_median_over_studies_fails_only_with_the_majority(failed: int, solved: bool) -> None:
    times_K = np.array([10.0, 11.0, 12.0])
    times_K[:failed] = INF
    assert np.isfinite(median(times_K)) == solved


def test_points_are_the_same_for_all_lengths_fill_the_space_and_are_of_each_studys_own() -> None:
    space = (Range("peak", "log", 1e-3, 1e-1), Range("b2", "log_from_1", 0.01, 0.1))
    drawn = points(space, 64)
    assert drawn[:10] == points(space, 10)
    rate = np.array([point["peak"] for point in drawn])
    assert ((rate >= 1e-3) & (rate <= 1e-1)).all()
    counts, _ = np.histogram(np.log10(rate), 8, (-3, -1))
    assert counts.min() >= 6  # of 8, were it even
    assert all(0.9 <= point["b2"] <= 0.99 for point in drawn)
    assert points((), 3) == [{}] * 3


def test_all_submissions_have_equal_budgets_and_seeds(s: Settings) -> None:
    table = pd.DataFrame([vars(at) for at in bench_design.scored(s)])
    external = table[table.part == EXTERNAL]
    assert (external.groupby("submission").size() == s.studies * s.trials).all()
    assert (external.groupby("submission").seed.apply(sorted).map(str).nunique()) == 1
    assert len({at.optimizer for at in bench_design.scored(s) if at.submission == "Muon"}) == s.studies * s.trials


@pytest.mark.parametrize("setting", ["small", "full"])
def test_both_settings_expand_to_runs_and_trials(setting: str) -> None:
    c = config.get_config(setting)
    values = dict(c.items())
    whole = bench_design.settings_of(values.pop("study").to_dict())
    runs = Sweep(run_from(values), tuple(config.get_stages(c))).runs()
    entries = len(bench_design.tuning(whole)) + len(bench_design.scored(whole))
    assert len(runs) == entries * len(whole.language)
    assert len({run.program for run in runs}) == len({at.key for at in (*whole.external, *whole.self_tuning)})
    trials = {bench_design.trial(whole, task.workload, at).run_id for task in whole.digits
              for at in (*bench_design.tuning(whole), *bench_design.scored(whole))}
    assert len(trials) == entries * len(whole.digits)


def test_every_program_of_the_language_models_is_timed_for_each_of_them(s: Settings) -> None:
    values = dict(config.get_config().items())
    values.pop("study")
    runs = to_time(s, run_from(values))
    assert len(runs) == len(s.language) * len({run.program for run in runs})
    assert {run.optimizer.name for run in runs} == {"adamw", "radam", "muon", "soap", "lion", "schedule_free"}


def test_a_timed_program_leaves_the_times_of_all_its_calls_for_each_of_its_runs(tmp_path, s: Settings) -> None:
    write_text(tmp_path / "text", 0, 100)
    c = config.get_config()
    c.data = {**c.data.to_dict(), "domains": {"prose": f"folder:{tmp_path}/text"}, "sequence": 16, "batch": 2}
    c.model.update({"width": 8, "depth": 1, "heads": 1})
    c.evaluation.windows = 4
    values = dict(c.items())
    values.pop("study")
    only_prose = dataclasses.replace(s, language=s.language[:1], external=s.external[:1], self_tuning=s.self_tuning[:1])
    run = to_time(only_prose, run_from(values))[0]
    store = Store(tmp_path / "store")
    time_in_turn([run, dataclasses.replace(run, training=dataclasses.replace(run.training, seed=7))], store,
                 Workbench(tmp_path / "cache"))
    told = store.read("diagnostics")
    assert (told.groupby("run_id").size() == ROUNDS).all()
    assert told.run_id.nunique() == 2
    assert (told.value > 0).all()


def test_what_one_half_decides_of_clear_differences_the_other_confirms(found: Findings) -> None:
    count, agreed = across(found.rulesets[EXTERNAL, STEPS].times, 200, 0.95)
    assert count == agreed
    assert count >= 16  # nine pairs, both ways, but for what a tie of evaluations leaves open


def test_the_report_says_the_answer(store: Store, found: Findings) -> None:
    page, figures = optimizer_bench_page.page(store, found)
    assert optimizer_bench.headline(found)[:40] in page.text()
    assert page.text().count('src="data:image/png;base64,') == len(figures) == 4
    record = json.loads(json.dumps(optimizer_bench_page.record(found), allow_nan=False))
    assert len(record["rulesets"]["external, steps"]["pairs"]) == 10
    assert "Muon needs the fewest steps" in optimizer_bench_page.summary(found)


def test_what_is_kept_gives_the_same_answer(store: Store, found: Findings, tmp_path) -> None:
    again = Store(tmp_path)
    for name in ("runs", "curves", "diagnostics"):
        again.write(name, "all", optimizer_bench.kept(name, store.read(name)))
    claims = optimizer_bench.analyse(again, study()).claims
    assert [(claim.statement, claim.measured) for claim in claims] == [
        (claim.statement, claim.measured) for claim in found.claims]


def test_what_is_missing_is_refused(tmp_path, s: Settings, store: Store) -> None:
    with pytest.raises(ConfigError, match="expected the runs of the bench; run python -m"):
        bench_runs.placed(Store(tmp_path / "none"), s, s.workloads)
    short = Store(tmp_path / "short")
    short.write("runs", "all", store.read("runs").iloc[10:])
    with pytest.raises(ConfigError, match="workload language: expected 76 finished trials, found 66"):
        bench_runs.placed(short, s, s.workloads)
    runs = bench_runs.placed(store, s, s.workloads)
    values = bench_runs.losses(store, s, runs)
    with pytest.raises(ConfigError, match=r"workload language: retrained trials = 0: expected 5"):
        bench_runs.targets(s, values[values.part != RETRAINED])
    speed = bench_runs.step_seconds(store, runs)
    with pytest.raises(ConfigError, match=r"step_seconds = \[\['language', 'SOAP'\]"):
        bench_runs.trials(s, runs, values, {}, speed[speed["optimizer.name"] != "soap"])


@pytest.mark.parametrize(("change", "message"), [
    ({"studies": 5}, "study.studies = 5: expected an even number"),
    ({"baselines": ("Adam",)}, "study.baselines: unknown key 'Adam'; did you mean"),
    ({"every": 7}, "steps of tuning = 180: expected a multiple of every = 7"),
    ({"external": config.EXTERNAL[:1] * 2}, "expected one of each optimizer and form"),
])
def test_settings_that_cannot_be_run_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bench_design.settings_of({**study(), **change})


def test_a_space_of_a_field_that_the_optimizer_lacks_is_refused() -> None:
    wrong = {**config.EXTERNAL[0], "space": ({"field": "momentum", "kind": "log", "low": 0.1, "high": 1.0},)}
    with pytest.raises(ConfigError, match="space of AdamW: unknown key 'momentum'"):
        bench_design.settings_of({**study(), "external": (wrong,)})
