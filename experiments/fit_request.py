"""What a user asks of `experiments.fit`, read from its flags: table, columns, law, objective, places to predict."""

import fnmatch
import json
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.workdir import sweep_runs
from scaling.fields import ConfigError
from scaling.fitting import Objective, huber, least_squares
from scaling.laws.catalogue import FAMILIES, law_named
from scaling.laws.law import Law
from scaling.store import Part, Store, StoreError
from scaling.tidy import tidy

SHARES = "shares"


class RequestError(ValueError):
    """A command that cannot be carried out; the message names the flag, its value and the cure."""


def read_map(pairs: list[str]) -> dict[str, str]:
    """Column by input, of INPUT=COLUMN,... ."""
    mapping: dict[str, str] = {}
    for pair in pairs:
        name, equals, column = (part.strip() for part in pair.partition("="))
        if not (name and equals and column):
            raise RequestError(f"--map: {pair!r} is not INPUT=COLUMN; write a list such as N=params,D=tokens,loss=loss")
        if name in mapping:
            raise RequestError(f"--map: {name!r} is given twice, {mapping[name]!r} and {column!r}; keep one")
        mapping[name] = column
    return mapping


def read_table(path: Path) -> pd.DataFrame:
    """A CSV or Parquet file; rows of a CSV file are numbered as its lines."""
    if not path.is_file():
        raise RequestError(f"--table: no file at {path}")
    try:
        if path.name.endswith((".csv", ".csv.gz")):
            table = pd.read_csv(path)
            table.index += 2
            return table
        if path.suffix == ".parquet":
            return pd.read_parquet(path).reset_index(drop=True)
    except (OSError, ValueError, EOFError, zlib.error) as error:  # the last two of a .gz that is cut or damaged
        raise RequestError(f"--table: {path} cannot be read as {path.suffix[1:]} ({error})") from error
    raise RequestError(f"--table: {path.name} is neither .csv, .csv.gz nor .parquet; convert it")


def read_sweep(workdir: Path, domain: str | None, by: str | None, logged: bool) -> pd.DataFrame:
    """The tidy table of a workdir's last sweep, of one held-out domain unless there is a fit for each."""
    try:
        store = Part(Store(workdir / "store"), sweep_runs(workdir))
        table = tidy(store.read("runs"), store.read("curves"), logged=logged)
    except (ConfigError, StoreError) as error:
        raise RequestError(str(error)) from error
    domains = sorted(table["domain"].unique())
    if domain is None and len(domains) > 1 and by != "domain":
        raise RequestError(f"--domain: missing; expected one of {', '.join(domains)}, or --by=domain to fit each")
    if domain is not None and domain not in domains:
        raise RequestError(f"--domain: {domain!r} is no held-out domain of the sweep, which has {', '.join(domains)}")
    return table if domain is None else table[table["domain"] == domain].reset_index(drop=True)


def check_writable(out: Path | None) -> None:
    """Make the folder of --out and try it, before a fit that could not be kept is computed."""
    if out is None:
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise RequestError(f"--out: {out} is no folder to write to ({error.strerror}); name another one") from error


def kept(table: pd.DataFrame, where: str | None, mapping: Mapping[str, str]) -> pd.DataFrame:
    """The rows that meet the condition."""
    if where is None:
        return table
    named = table.assign(**{name: table[column] for name, column in mapping.items() if column in table})
    try:
        rows = table[np.asarray(named.eval(where), dtype=bool)]
    except Exception as error:  # pandas passes on whatever its parser meets
        columns = ", ".join(map(str, table))
        raise RequestError(f"--where: {where!r} is no condition on the columns {columns} ({error})") from error
    if rows.empty:
        raise RequestError(f"--where: no row of {len(table)} meets {where!r}")
    return rows


def read_objective(text: str | None) -> Objective | None:
    """huber[:delta][:raw] or least_squares[:log]; None for the law's default."""
    if text is None:
        return None
    name, *rest = text.split(":")
    try:
        if name == "huber" and rest[1:] in ([], ["raw"], ["log"]):
            return huber(float(rest[0]) if rest else 1e-3, "raw" if rest[1:] == ["raw"] else "log")
        if name == "least_squares" and rest in ([], ["raw"], ["log"]):
            return least_squares("log" if rest == ["log"] else "raw")
    except ValueError as error:
        raise RequestError(
            f"--objective: {text!r} ({error}); write huber:0.001, huber:0.001:raw or least_squares"
        ) from error
    raise RequestError(f"--objective: {text!r} is not huber[:DELTA[:raw]] or least_squares[:log]")


def law_of(name: str, arguments: str, shares: str | None, table: pd.DataFrame) -> Law:
    """The law by name; a family of mixtures takes its domains from the columns that match `shares`."""
    try:
        given = json.loads(arguments)
        if not isinstance(given, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise RequestError(f"--arguments: {arguments!r} is not JSON such as '{{\"breaks\": 1}}' ({error})") from error
    family = FAMILIES.get(name)
    if family and "domains" in family.arguments and "domains" not in given:
        if shares is None:
            raise RequestError(f"--map: law {name!r} needs the columns of its shares, such as --map 'shares=p_*'")
        given["domains"] = matching(table, shares, SHARES)
    elif shares is not None:
        raise RequestError(f"--map: law {name!r} takes no shares; leave shares={shares} out")
    try:
        return law_named(name, **given)
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(f"--law: {error.args[0]}") from error


def matching(table: pd.DataFrame, pattern: str, name: str) -> list[str]:
    """Columns that match PATTERN!LEFT_OUT!..., in the table's order; a column's own name matches itself."""
    if pattern in table:
        return [pattern]
    wanted, *others = pattern.split("!")
    columns = [str(c) for c in table]
    found = [c for c in fnmatch.filter(columns, wanted) if not any(fnmatch.fnmatchcase(c, other) for other in others)]
    if not found and not set(pattern) & set("*?[!"):
        return [pattern]  # a plain name: the fit's own message says what is missing, and what for
    if not found:
        raise RequestError(f"--map: no column matches {name}={pattern}; the table has {', '.join(columns)}")
    return found


def read_place(law: Law, text: str) -> dict[str, float | str]:
    """The inputs of a prediction, of 'N=7e9,D=1.4e12'."""
    pairs = [part.partition("=") for part in text.split(",")]
    given = {name.strip(): value.strip() for name, _, value in pairs}
    if set(given) != set(law.input_names) or not all(equals for _, equals, _ in pairs):
        raise RequestError(f"--target: {text!r} must give INPUT=VALUE for exactly {', '.join(law.input_names)}")
    place: dict[str, float | str] = {}
    for i in law.inputs:
        try:
            place[i.name] = given[i.name] if i.labels else float(given[i.name])
        except ValueError as error:
            raise RequestError(f"--target: {i.name}={given[i.name]} is no number; write one such as 7e9") from error
    law.read_inputs({name: [value] for name, value in place.items()})
    return place
