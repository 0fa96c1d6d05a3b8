"""Fit a law to a table of one's own or to a sweep's runs: summary on the terminal, fit.json and figures in a folder.

python -m experiments.fit --list [--law=chinchilla]
python -m experiments.fit --table=my.csv --law=chinchilla --map N=params,D=tokens,loss=val_loss \
    --holdout 'N > 1e9' --bootstrap=1000 --target 'N=7e9,D=1.4e12' --out=fit/
python -m experiments.fit --table=my.csv --law=all --map N=params,D=tokens,loss=val_loss --holdout 'N > 1e9'
python -m experiments.fit --workdir=runs/mine --domain=prose --law=chinchilla --map N=params_non_embedding,D=tokens
python -m experiments.fit --table=mixtures.csv --law=data-mixing --map 'shares=p_*!p_sum,loss=loss_*' --by=model_size

--map says which column holds an input of the law; "loss" is its target, whatever that is. A pattern on loss gives one
fit a column, one on shares gives a mixture law its domains, and what follows ! is left out. Rows in messages about a
CSV file are its lines, the header being line 1.
"""

import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from absl import app, flags, logging

from experiments.fit_request import (
    SHARES,
    RequestError,
    check_writable,
    kept,
    law_of,
    matching,
    read_map,
    read_objective,
    read_place,
    read_sweep,
    read_table,
)
from scaling.figures.contour import contour
from scaling.figures.fit import colouring, curves, predicted, residuals, shares
from scaling.figures.profiles import profiles
from scaling.figures.style import png
from scaling.files import StoreError, disk_errors
from scaling.fitting import Fit, fit_each
from scaling.fitting.comparison import compare, rank_all
from scaling.fitting.profile import profile
from scaling.laws.catalogue import FAMILIES, LAWS
from scaling.laws.law import Family, Law, TableError

TARGET = "loss"
_IN_THE_SHELL = {
    "map it with columns=": "map it with --map INPUT=COLUMN",
    "name it with target=": "name it with --map loss=COLUMN",
    "pass group=None where": "leave --group out where",
    "use an objective with scale='raw', such as least_squares()": "use --objective=least_squares",
    "reasons in left_out": "reasons in left_out.csv of --out",
}


def define(values: flags.FlagValues) -> None:
    """The flags of this verb."""

    def text(name: str, words: str, default: str | None = None) -> None:
        flags.DEFINE_string(name, default, words, flag_values=values)

    text("table", "CSV (.csv, .csv.gz) or Parquet (.parquet) file, one row a point; or --workdir.")
    text("workdir", "Folder of a sweep, instead of a table: one row a run, by its held-out loss at the end.")
    text("domain", "Held-out domain of --workdir; where it has several, name one, or fit each with --by=domain.")
    flags.DEFINE_bool("logged", False, "Of --workdir: one row a logged step of a run.", flag_values=values)
    text("law", "Law by name, or 'all' to rank every law whose inputs the table has; see --list.")
    text("arguments", "JSON of what a family of laws needs beside its shares, such as '{\"breaks\": 1}'.", "{}")
    flags.DEFINE_list(
        "map", [], "Columns: INPUT=COLUMN,...; loss=COLUMN; patterns on loss and shares.", flag_values=values
    )
    text("where", "Condition on columns or inputs: the rows to use.")
    text("holdout", "Condition on columns or inputs: the rows to predict, not to fit, such as 'N > 1e9'.")
    text("by", "Column with one fit for each of its values.")
    text(
        "group",
        "Column whose equal values share noise: the run. By default run_id where the table has it, else each"
        " row is a run.",
    )
    text("stratum", "Column within whose values runs are resampled.")
    text("weights", "Column of weights on the rows.")
    text("error", "Column of known standard errors of the target.")
    text("objective", "huber[:DELTA[:raw]] or least_squares[:log]; by default huber:0.001 on the logarithm.")
    flags.DEFINE_integer("bootstrap", 400, "Resamples behind intervals.", lower_bound=0, flag_values=values)
    flags.DEFINE_integer("seed", 0, "Of starts and resamples.", flag_values=values)
    flags.DEFINE_multi_string("target", [], "Where to predict: 'N=7e9,D=1.4e12'. May be repeated.", flag_values=values)
    flags.DEFINE_list("profile", [], "Parameters to draw profile curves of, or 'all'.", flag_values=values)
    text("out", "Folder for fit.json and figures; without it only the terminal is written to.")
    flags.DEFINE_bool("list", False, "Show the catalogue, or the one law given, and stop.", flag_values=values)


def run(values: flags.FlagValues) -> str:
    """Carry out the command; what is printed. Raises RequestError, TableError and StoreError with the cure."""
    if values.list:
        return catalogue(values.law)
    needed = ("law",) if values.workdir else ("table", "law")
    for name in needed:
        if values[name].value is None:
            raise RequestError(f"--{name}: missing; expected: {values[name].help}")
    mapping = read_map(values.map)
    table = kept(table_of(values), values.where, mapping)
    out = Path(values.out) if values.out else None
    options = options_of(values, table)
    answered = ranked if values.law == "all" else fitted
    with disk_errors(out) if out else nullcontext():
        text = answered(values, table, mapping, options, out)
    groups = f"runs: equal values of {options['group']}" if options["group"] else "runs: each row is one (no --group)"
    return shell_words("\n".join([text, groups, *([f"written to {out}"] if out else [])]))


def table_of(values: flags.FlagValues) -> pd.DataFrame:
    """The table of --table or --workdir."""
    if not values.workdir:
        if values.domain or values.logged:
            raise RequestError("--domain, --logged: a table has no such parts; name rows with --where")
        return read_table(Path(values.table))
    if values.table:
        raise RequestError(f"--table: {values.table} and --workdir={values.workdir} are both given; name one")
    return read_sweep(Path(values.workdir), values.domain, values.by, values.logged)


def fitted(
    values: flags.FlagValues, table: pd.DataFrame, mapping: Mapping[str, str], options: dict[str, Any], out: Path | None
) -> str:
    """One law, one fit a target column and value of --by."""
    law = law_of(values.law, values.arguments, mapping.get(SHARES), table)
    places = [read_place(law, text) for text in values.target]
    targets = matching(table, mapping.get(TARGET, TARGET), TARGET)
    check_profiles(law, values.profile)
    check_writable(out)
    with refused():
        fits = fit_each(law, table, targets=targets, by=values.by, columns=inputs_of(mapping), **options)
    texts = {name: described(name, fit, places) for name, fit in fits.items()}
    if out:
        for name, fit in fits.items():
            folder = out / _folder(name) if len(fits) > 1 else out
            write(fit, folder, places, values.profile)
            (folder / "summary.txt").write_text(texts[name] + "\n")
    if len(fits) == 1:
        return next(iter(texts.values()))
    if out:
        overview_table(fits).to_csv(out / "fits.csv", index=False)
    refusals = [f"{name}: refused, {refusal}" for name, fit in fits.items() for refusal in fit.refusals]
    return "\n".join(
        [overview(fits), *refusals, *(f"{n}:{predicted_text(fits[n], at)}" for at in places for n in fits)]
    )


def ranked(
    values: flags.FlagValues, table: pd.DataFrame, mapping: Mapping[str, str], options: dict[str, Any], out: Path | None
) -> str:
    """Every law of the catalogue whose inputs the table has; with shares, every family of mixtures."""
    targets = matching(table, mapping.get(TARGET, TARGET), TARGET)
    if len(targets) > 1 or values.by:
        raise RequestError("--law: 'all' ranks laws for one target and one table; name one loss column, without --by")
    check_writable(out)
    if SHARES in mapping:
        named = table.assign(**{name: table[column] for name, column in inputs_of(mapping).items() if column in table})
        laws, left_out = _families(named, mapping[SHARES])
        with refused():
            comparison = replace(compare(laws, named, target=targets[0], **options), left_out=left_out)
    else:
        with refused():
            comparison = rank_all(table, columns=inputs_of(mapping), target=targets[0], **options)
    lines = [comparison.summary()]
    for text in values.target:
        names = {pair.partition("=")[0].strip() for pair in text.split(",")}
        fits = [fit for fit in comparison.fits.values() if names == set(fit.law.input_names)]
        if not fits:
            raise RequestError(f"--target: no ranked law has exactly the inputs {', '.join(sorted(names))}")
        lines += [f"{fit.law.name}:{predicted_text(fit, read_place(fit.law, text))}" for fit in fits]
    if out:
        comparison.table.to_csv(out / "ranking.csv", index=False)
        reasons = pd.DataFrame(comparison.left_out.items(), columns=["law", "reason"])
        reasons.to_csv(out / "left_out.csv", index=False)
        for name, fit in comparison.fits.items():
            (out / f"{_folder(name)}.json").write_text(fit.to_json())
        best = next(iter(comparison.fits.values()))
        write(best, out / "best", [], [])
    return "\n".join(lines)


def _families(table: pd.DataFrame, shares_pattern: str) -> tuple[list[Law], dict[str, str]]:
    """The mixture laws of these shares that the table has all inputs of, and why the others are left out."""
    members = [
        law_of(name, "{}", shares_pattern, table)
        for name, family in FAMILIES.items()
        if set(family.arguments) == {"domains"}
    ]
    absent = {law.name: [name for name in law.input_names if name not in table] for law in members}
    left_out = {name: f"no column for {', '.join(names)}" for name, names in absent.items() if names}
    return [law for law in members if not absent[law.name]], left_out


@contextmanager
def refused() -> Iterator[None]:
    """What the engine refuses (strata that cut runs, a law that is finite nowhere) as a request that cannot be met."""
    try:
        yield
    except TableError:
        raise
    except (ValueError, FloatingPointError) as error:
        raise RequestError(str(error)) from error


def inputs_of(mapping: Mapping[str, str]) -> dict[str, str]:
    """The part of --map that names inputs."""
    return {name: column for name, column in mapping.items() if name not in (TARGET, SHARES)}


def check_profiles(law: Law, wanted: Sequence[str]) -> None:
    """RequestError for a parameter that the law has not."""
    if list(wanted) != ["all"] and (unknown := set(wanted) - set(law.parameter_names)):
        raise RequestError(
            f"--profile: law {law.name!r} has no parameter {sorted(unknown)[0]!r}; write 'all', or some of"
            f" {', '.join(law.parameter_names)}"
        )


def _folder(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", name)


def options_of(values: flags.FlagValues, table: pd.DataFrame) -> dict[str, Any]:
    """The keyword arguments of `fitting.fit` that flags give."""
    group = values.group or ("run_id" if "run_id" in table else None)
    return {
        "group": group,
        "stratum": values.stratum,
        "weights": values.weights,
        "error": values.error,
        "objective": read_objective(values.objective),
        "bootstrap": values.bootstrap,
        "seed": values.seed,
        "holdout": values.holdout,
    }


def described(name: str, fit: Fit, places: Sequence[Mapping[str, Any]]) -> str:
    """Summary of a fit, and its predictions."""
    return "\n".join([f"== {name}", fit.summary(), *(predicted_text(fit, place) for place in places)])


def predicted_text(fit: Fit, place: Mapping[str, Any]) -> str:
    """A prediction with its intervals, and how far it is extrapolated."""
    row = prediction(fit, place)
    at = ", ".join(f"{key} = {value if isinstance(value, str) else f'{value:g}'}" for key, value in place.items())
    text = f"  at {at}: {row['predicted']:.5g}"
    if "low" in row:
        text += f", 95% of the mean curve [{row['low']:.5g}, {row['high']:.5g}]"
    if "new_low" in row:
        text += f", of a new run [{row['new_low']:.5g}, {row['new_high']:.5g}]"
    if "note" in row:
        text += f"\n    no interval of a new run: {row['note']}"
    return "\n    ".join([text, *outside(fit, place)])


def prediction(fit: Fit, place: Mapping[str, Any]) -> dict[str, Any]:
    """The law at a place, with 95% intervals of the mean curve and of a new run where the fit has draws.

    `note` says why there is none of a new run.
    """
    row: dict[str, Any] = {"predicted": float(fit.predict(place))}
    if len(fit.draws_BxP):
        row["low"], row["high"] = map(float, fit.interval(place))
        try:
            row["new_low"], row["new_high"] = map(float, fit.prediction_interval(place))
        except ValueError as error:  # too few runs to tell noise from curve
            row["note"] = str(error)
    return row


def outside(fit: Fit, place: Mapping[str, Any]) -> list[str]:
    """How far a place lies outside the fitted rows, by input."""
    found = []
    for i in fit.law.inputs:
        low, high = fit.ranges[i.name]
        if not i.labels and not low <= place[i.name] <= high:
            near = high if place[i.name] > high else low
            far = f"a factor {place[i.name] / near:.3g} from" if near > 0 and place[i.name] > 0 else "outside"
            found.append(f"extrapolated: {i.name} is {far} the fitted [{low:.4g}, {high:.4g}]")
    return found


def overview_table(fits: Mapping[str, Fit]) -> pd.DataFrame:
    """One row a fit: estimates, errors, status."""
    rows = [
        {
            "fit": name,
            **fit.parameters,
            "n": fit.errors.points,
            "relative_error": fit.errors.relative,
            "held_out_error": fit.held_out.relative if fit.held_out else math.nan,
            "status": fit.status,
        }
        for name, fit in fits.items()
    ]
    return pd.DataFrame(rows).dropna(axis=1, how="all")


def overview(fits: Mapping[str, Fit]) -> str:
    """The same in words."""
    return overview_table(fits).to_string(index=False, float_format=lambda value: f"{value:.4g}")


def write(fit: Fit, folder: Path, places: Sequence[Mapping[str, Any]], wanted: Sequence[str]) -> None:
    """fit.json, predictions.csv where places are given, and the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fit.json").write_text(fit.to_json())
    if places:
        pd.DataFrame([{**place, **prediction(fit, place)} for place in places]).to_csv(
            folder / "predictions.csv", index=False
        )
    names = [i.name for i in fit.law.inputs if not i.labels and i.name not in fit.law.simplex]
    figures = {f"along_{name}": curves(fit, name, colouring(fit, name)) for name in names}
    figures |= {"residuals": residuals(fit), "predicted": predicted(fit)}
    if fit.law.simplex:
        figures["shares"] = shares(fit)
    if set(fit.law.input_names) == {"N", "D"}:
        figures["contour"] = contour(fit)
    if wanted:
        chosen = fit.parameters if list(wanted) == ["all"] else wanted
        figures["profiles"] = profiles(fit, [profile(fit, name) for name in chosen])
    for name, figure in figures.items():
        (folder / f"{name}.png").write_bytes(png(figure))


def shell_words(text: str) -> str:
    """A message of the library with the cures that the shell has."""
    for python, shell in _IN_THE_SHELL.items():
        text = text.replace(python, shell)
    return text


def catalogue(name: str | None) -> str:
    """Every law and family, or the one named: formula, target, inputs with units, parameters, source."""
    known: dict[str, Law | Family] = {**LAWS, **FAMILIES}
    if name is not None and name not in known:
        raise RequestError(f"--law: no law named {name!r}; --list alone shows them all")
    return "\n\n".join(_entry(known[key]) for key in ([name] if name else known))


def _entry(law: Law | Family) -> str:
    lines = [f"{law.name}: {law.formula}", f"  target: {law.target}" if law.target else "", f"  {law.citation}"]
    if isinstance(law, Law):
        lines.insert(2, "  inputs: " + "; ".join(f"{i.name} in {i.domain}, {i.unit}" for i in law.inputs))
        units = [f"{p.name} [{p.unit}]" if p.unit else p.name for p in law.parameters]
        lines.insert(3, "  parameters: " + ", ".join(units))
        lines.append(f"  {law.notes}")
    else:
        lines.insert(2, "  family, needs: " + "; ".join(f"{key}: {what}" for key, what in law.arguments.items()))
    return "\n".join(line for line in lines if line.strip())


def main(arguments: Sequence[str]) -> None:
    """The command line: what the user can cure is one line and exit code 2."""
    if extra := arguments[1:]:
        _stop(RequestError(f"{extra[0]!r} belongs to no flag; write lists without spaces, conditions in quotes"))
    logging.set_verbosity(logging.WARNING)
    try:
        print(run(flags.FLAGS))
    except (RequestError, TableError, StoreError) as error:
        _stop(error)


def _parse(arguments: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(list(arguments))
    except flags.Error as error:
        _stop(error)


def _stop(error: Exception) -> NoReturn:
    print(shell_words(f"{type(error).__name__}: {error}"), file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    define(flags.FLAGS)
    app.run(main, flags_parser=_parse)
