"""The page of the published refits."""

from collections.abc import Mapping

import pandas as pd

from experiments.page import Page

_HEADINGS = {
    "chinchilla": "Size and data: the Chinchilla points",
    "mixtures": "Mixtures: data mixing laws, critical ratios",
    "regmix": "Mixtures: RegMix",
    "schedules": "Learning-rate schedules: annealing and multi-power laws",
    "steplaw": "Learning rate and batch: Step Law",
    "repetition": "Repeated data",
    "learning_curves": "Learning curves: M1 to M4, broken laws",
    "algoperf": "AlgoPerf scores",
}


def page(rows: pd.DataFrame, contests: pd.DataFrame, figures: Mapping[str, bytes]) -> str:
    """HTML with, for each family, the table of figures, the contest of laws, and its figures."""
    document = Page("Published laws, refitted to published measurements")
    counts = rows["verdict"].value_counts()
    document.paragraph("; ".join(f"{count} {verdict}" for verdict, count in counts.items()), kind="answer")
    document.paragraph(
        "Each row is a figure that a paper prints, and what the same table gives here, with a 95% interval where one"
        " can be had, the number of points behind it, the objective, and the seconds it took (compilation included). A"
        " row without a published figure is ours alone."
    )
    for family in dict.fromkeys(rows["family"]):
        document.heading(_HEADINGS[family])
        document.table(_readable(rows[rows["family"] == family]))
        if len(contests) and len(contest := contests[contests["family"] == family].dropna(axis=1, how="all")):
            document.paragraph("Laws ranked by error on rows that no fit saw, at the largest scale:")
            document.table(contest.drop(columns="family").map(_short))
        for name, image in figures.items():
            if name.startswith(f"{family}_"):
                document.figure(image, name.removeprefix(f"{family}_").replace("_", " "))
    return document.text()


def _readable(rows: pd.DataFrame) -> pd.DataFrame:
    interval = [
        "none" if pd.isna(low) or pd.isna(high) else f"[{_short(low)}, {_short(high)}]"
        for low, high in zip(rows["low"], rows["high"], strict=True)
    ]
    columns = ["source", "quantity", "published", "ours"]
    shown = rows[columns].map(_short).assign(interval=interval)
    rest = rows[["n", "objective", "verdict", "seconds", "note"]].map(_short)
    return pd.concat([shown, rest], axis=1)


def _short(value: object) -> object:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.5g}"
    return value
