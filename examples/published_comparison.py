"""Which re-initialization method wins, from the published accuracies of Alabdulmohsin et al. (2021): Table 3, Figure 3.

python examples/published_comparison.py

It needs no training: the exact binomial tests and the decision tree are those of `warmstart-sim analyze`, on the
numbers of Tables 2, 6 and 7.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from warmstart_sim.published import published_numbers
from warmstart_sim.report.decision_tree import draw
from warmstart_sim.report.style import to_png
from warmstart_sim.results.decision_tree import fit, leaves
from warmstart_sim.results.sign_tests import sign_tests

METHODS = ["baseline", "welsr", "dsd", "wels", "fc", "layerwise"]
DESIGN = ["model.name", "data.name", "augmentation", "dropout"]
TABLES = {"D-T2": ("yes", "no"), "D-T6": ("no", "no"), "D-T7": ("yes", "yes")}  # with augmentation, with dropout
MARKS = {0: ".", 1: "*", 2: "o"}
SIZES = {  # training samples and classes, Table 5
    "oxford_iiit_pet": (3_680, 37), "stanford_dogs": (12_000, 120), "fashion_mnist": (60_000, 10),
    "cars196": (8_144, 196), "mnist_corrupted": (60_000, 10), "cifar10_corrupted": (50_000, 10),
    "cifar10": (50_000, 10), "caltech101": (3_060, 101), "cassava": (5_656, 4), "cmaterdb": (5_000, 10),
    "birds2010": (3_000, 200), "cifar100": (50_000, 100),
}  # fmt: skip


def published_accuracies() -> pd.DataFrame:
    """Test accuracies of Tables 2, 6 and 7: a row for each design, a column for each method."""
    rows = [
        {**number.condition, "augmentation": augmentation, "dropout": dropout, "accuracy": number.value}
        for table, (augmentation, dropout) in TABLES.items()
        for number in published_numbers(table)
        if {"model.name", "strategy"} <= set(number.condition)  # two numbers cannot be given to a model
    ]
    return pd.DataFrame(rows).pivot(index=DESIGN, columns="strategy", values="accuracy")[METHODS]


def compare_tests(accuracies: pd.DataFrame) -> pd.DataFrame:
    """The tests of each architecture, with the mark of Table 3 in the column `printed`."""
    printed = {
        (number.condition["model.name"], number.condition["strategy"], number.condition["versus"]): int(number.value)
        for number in published_numbers("D-T3")
    }
    rows = [
        {"model": model, **row, "printed": printed[model, row["strategy"], row["versus"]]}
        for model, group in accuracies.groupby(level="model.name", sort=False)
        for row in sign_tests(group)
    ]
    return pd.DataFrame(rows)


def marks(tests: pd.DataFrame, column: str) -> str:
    """A table like Table 3: the method in a column beats that in the row (* alone, o after Holm's correction too)."""
    table = tests.assign(mark=tests[column].map(MARKS)).pivot(
        index="versus", columns=["model", "strategy"], values="mark"
    )
    models = tests["model"].unique()
    lines = [" " * 10 + " ".join(f"{model:<12}" for model in models)]
    for versus in METHODS:
        cells = (
            "".join(" " + ("-" if versus == method else table.loc[versus, (model, method)]) for method in METHODS)
            for model in models
        )
        lines.append(f"{versus:<10}" + " ".join(cells))
    return "\n".join(lines)


def designs(accuracies: pd.DataFrame) -> pd.DataFrame:
    """The features of Figure 3 that the tables have (the initialiser is not among them)."""
    frame = accuracies.index.to_frame(index=False)
    samples, classes = zip(*frame.pop("data.name").map(SIZES), strict=True)
    return frame.assign(train_samples=samples, classes=classes)


def main(out: Path = Path("published_tree.png")) -> None:
    """Prints the tests beside Table 3 and the rules of the tree, and draws the tree."""
    accuracies = published_accuracies()
    tests = compare_tests(accuracies)
    print(f"Columns in the order {', '.join(METHODS)}.\n\nTable 3 as printed:\n{marks(tests, 'printed')}\n")
    print(f"From Tables 2, 6 and 7:\n{marks(tests, 'significance')}\n")
    differ = tests[tests["printed"] != tests["significance"]]
    print(f"{len(differ)} of {len(tests)} marks differ:\n{differ.round(4).to_string(index=False)}\n")
    complete = accuracies.dropna()
    tree = fit(designs(complete), complete)
    with pd.option_context("display.max_colwidth", None):
        print(pd.DataFrame(leaves(tree)).round(2).to_string(index=False))
    out.write_bytes(to_png(draw(tree, METHODS)))
    print(f"figure: {out}")


if __name__ == "__main__":
    main()
