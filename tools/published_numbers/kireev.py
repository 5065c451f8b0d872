"""The numbers that Kireev, Mohtashami and Pajouheshgar (2021) state, from the report's text.

python tools/published_numbers/kireev.py PAPER_TEXT > warmstart_sim/published/kireev.csv
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from published_number import PublishedNumber, print_csv, value_and_spread

DATA = ("cifar10", "svhn", "cifar100")
OPTIMIZERS = (
    "training.optimizer.name=sgd; training.optimizer.momentum=0",
    "training.optimizer.name=adam",
    "training.optimizer.name=sgd; training.optimizer.momentum=0.9",
)
ARMS = ("random_init", "warm_start")


def numbers(text: str) -> Iterator[PublishedNumber]:
    """All numbers of the report."""
    yield from table_1("B-T1a", "resnet18", "Table 1a", _between(text, "2.2 Effect", "(a) Test accuracies"))
    yield from table_1("B-T1b", "mlp", "Table 1b", _between(text, "(a) Test accuracies", "(b) Test accuracies"))
    c = _between(text, "(b) Test accuracies", "(c) Test accuracies")
    yield from table_1("B-T1c", "logistic_regression", "Table 1c", c)
    yield from table_2(text)
    yield from figure_3(text)
    yield from figure_7(text)


def table_1(row: str, model: str, where: str, table: str) -> Iterator[PublishedNumber]:
    """50 % of the data, then all. The text has one data set below another, each column by column: SGD, Adam, MSGD."""
    cells = re.findall(r"^\d+\.\d ?\(\d\.\d\)\*?$", table, re.MULTILINE)
    conditions = [(data, optimizer, arm) for data in DATA for optimizer in OPTIMIZERS for arm in ARMS]
    for (data, optimizer, arm), cell in zip(conditions, cells, strict=True):
        condition = f"data.name={data}; model.name={model}; {optimizer}; strategy={arm}; round=1"
        value, spread = value_and_spread(cell.removesuffix("*"))
        kind, seeds = "sem", "5"
        note = "not explained in the text; in the authors' code, std / sqrt(5) of five seeds, the std with divisor 5"
        if cell.endswith("*"):
            condition = condition.replace("; strategy", "; training.optimizer.lr=0.005; strategy")
            kind, seeds = "unknown", ""
            note = "marked with a star: another learning rate, 0.005 by section 2.1; the spread is not explained"
        yield PublishedNumber(row, condition, "test_accuracy", value, spread, kind, seeds, where=where, note=note)


def table_2(text: str) -> Iterator[PublishedNumber]:
    """Three strengths of weight decay; the text has the table column by column."""
    table = _between(text, "This does not match the results of the paper, where the", "Table 2. ")
    found = re.findall(r"^ ?(0\.\d+)\n(\d+\.\d+)\n(\d+\.\d+)$", table, re.MULTILINE)
    for decay, *values in found:
        for arm, value in zip(ARMS, values, strict=True):
            condition = (
                "data.name=cifar10; model.name=resnet18; training.optimizer.name=sgd; "
                f"training.optimizer.weight_decay={decay}; strategy={arm}; round=1"
            )
            yield PublishedNumber("B-T2", condition, "test_accuracy", value, where="Table 2")


def figure_3(text: str) -> Iterator[PublishedNumber]:
    """How early the gap appears."""
    (epochs,) = _found(r"gap can be observed even after (\d+) epochs", text)
    yield PublishedNumber(
        "B-F3", "data.name=cifar10; model.name=resnet18", "gap_from_epoch", epochs, seeds="1", unit="epochs",
        where="section 2.1, under 'Early-Stopping'", note="the first checkpoint",
    )  # fmt: skip


def figure_7(text: str) -> Iterator[PublishedNumber]:
    """How far weights can be shrunk without damage."""
    (damaged,) = _found(r"classifier performance damage for MLP with ReLU for λ > (\d\.\d)", text)
    (negligible,) = _found(r"for λ > (\d\.\d) the damage is negligible", text)
    (other,) = _found(r"accuracy is not significantly damaged for λ values greater than (\d\.\d)", text)
    relu = "model.name=mlp; model.activation=relu"
    for model, metric, lam, note in (
        (relu, "damaged_above_lambda", damaged, "so the text; Ash & Adams have damage for a smaller lambda only"),
        (relu, "undamaged_above_lambda", negligible, "the damage is called negligible"),
        ("model.name=resnet18", "undamaged_above_lambda", other, "not significantly damaged"),
        ("model.name=mlp; model.activation=tanh", "undamaged_above_lambda", other, "not significantly damaged"),
    ):
        yield PublishedNumber(
            "B-F7",
            f"data.name=cifar10; {model}",
            metric,
            lam,
            unit="",
            where="section 2.3, paragraph on Figure 7",
            note=note,
        )


def _between(text: str, start: str, end: str) -> str:
    return text[text.index(start) : text.index(end)]


def _found(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"the text has no {pattern}")
    return match.groups()


if __name__ == "__main__":
    print_csv(numbers)
