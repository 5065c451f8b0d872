"""The numbers that Ash & Adams (2020) state, from the paper's text.

python tools/published_numbers/ash_adams.py PAPER_TEXT > warmstart_sim/published/ash_adams.csv
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from published_number import PublishedNumber, print_csv, value_and_spread

DATA = {"CIFAR-10": "cifar10", "SVHN": "svhn", "CIFAR-100": "cifar100"}
MODELS = {"RESNET": "resnet18", "MLP": "mlp", "LR": "logistic_regression"}
ARMS = {"RANDOM INIT": "random_init", "WARM START": "warm_start", "RI": "random_init", "WS": "warm_start"}
STRENGTHS = {"L2": "l2_strength", "ADVERSARIAL": "adversarial_epsilon", "CONFIDENCE": "confidence_penalty_strength"}
LAST_LAYER = {
    "LL": "strategy=last_layer; round=1",
    "LL+WS": "strategy=last_layer; round=2",
    "WS": "strategy=warm_start; round=1",
    "RI": "strategy=random_init; round=1",
}
CIFAR10 = "data.name=cifar10; model.name=resnet18; training.optimizer.name=sgd"  # what section 3 trains
Table = list[list[str]]  # the cells of each line


def numbers(text: str) -> Iterator[PublishedNumber]:
    """All numbers of the paper."""
    yield from table_1(_table(text, after="## 2 Warm Starting", header="\tRESNET SGD"))
    yield from table_2(_table(text, after="Table 2: ", header="\tRESNET SGD"))
    yield from table_3(_table(text, after="Table 3: ", header="<b>L2</b>"))
    yield from table_4(_table(text, after="Table 4: ", header="\t$1 "), text)
    yield from table_5(_table(text, after="Table 5: ", header="\tLL"))
    yield from figure_6(text)
    yield from grid(
        "A-F15",
        "data.name=cifar10; model.name=resnet18; training.optimizer.name=adam",
        text,
        section="8.2.1",
        figure="15",
    )
    yield from grid(
        "A-F21", "data.name=svhn; model.name=mlp; training.optimizer.name=adam", text, section="8.2.4", figure="21"
    )


def table_1(table: Table) -> Iterator[PublishedNumber]:
    """50 % of the data, then all: the second round."""
    (_, *columns), *lines = table
    for first, *cells in lines:
        if first in DATA:
            data = DATA[first]
            continue
        for column, cell in zip(columns, cells, strict=True):
            yield _accuracy("A-T1", f"{_trained(data, column)}; strategy={ARMS[first]}; round=1", cell, "Table 1")


def table_2(table: Table) -> Iterator[PublishedNumber]:
    """The first round of Table 1."""
    (_, *columns), *lines = table
    for data, *cells in lines:
        for column, cell in zip(columns, cells, strict=True):
            yield _accuracy("A-T2", f"{_trained(DATA[data], column)}; strategy=warm_start; round=0", cell, "Table 2")


def table_3(table: Table) -> Iterator[PublishedNumber]:
    """Three kinds of regularisation, four strengths each."""
    note = "the caption repeats Table 2's; by section 3.3 these are accuracies after 50 % and then 100 % of the data"
    strengths = [_power(cell) for cell in table[0][1:]]
    for first, *cells in table:
        if first in STRENGTHS:
            column = STRENGTHS[first]
            continue
        for strength, cell in zip(strengths, cells, strict=True):
            condition = f"{CIFAR10}; strategy={ARMS[first]}; {column}={strength}; round=1"
            yield _accuracy("A-T3", condition, cell, "Table 3", note)


def table_4(table: Table, text: str) -> Iterator[PublishedNumber]:
    """Noise without shrinking; the caption has random init's numbers."""
    (_, *deviations), (_, *accuracies), (_, *minutes) = table
    for number, cells in ((_accuracy, accuracies), (_minutes, minutes)):
        for deviation, cell in zip(deviations, cells, strict=True):
            condition = f"{CIFAR10}; strategy=noise_only; sigma={_power(deviation)}; round=1"
            note = "the spread is six times the value; as printed" if cell == "14.6 (91.0)" else ""
            yield number("A-T4", condition, cell, "Table 4", note)
    accuracy, time = _found(r"on average achieve ([\d.]+)% accuracy in ([\d.]+) minutes", text)
    condition = f"{CIFAR10}; strategy=random_init; round=1"
    yield _accuracy("A-T4", condition, accuracy, "Table 4, caption")
    yield _minutes("A-T4", condition, time, "Table 4, caption")


def table_5(table: Table) -> Iterator[PublishedNumber]:
    """The last layer only, then the whole network in the round after; warm start; random init."""
    (_, *columns), *lines = table
    for data, *cells in lines:
        for column, cell in zip(columns, cells, strict=True):
            yield _accuracy("A-T5", f"{CIFAR10.replace('cifar10', DATA[data])}; {LAST_LAYER[column]}", cell, "Table 5")


def figure_6(text: str) -> Iterator[PublishedNumber]:
    """How far a ReLU MLP with biases can be shrunk."""
    (lam,) = _found(r"classifier damage is done only for +\$\\lambda < ([\d.]+)\$ +in Figure 6", text)
    condition = "data.name=cifar10; model.name=mlp; model.activation=relu; model.bias=true"
    note = "damaged only below this lambda; the text does not say how much counts as damage"
    yield PublishedNumber(
        "A-F6", condition, "undamaged_above_lambda", lam, unit="",
        where="section 4, third paragraph", note=note,
    )  # fmt: skip


def grid(row: str, trained: str, text: str, section: str, figure: str) -> Iterator[PublishedNumber]:
    """Final accuracy and train time of all rounds for every lambda and noise scale; some cells are blank.

    The corners are named as in the table's caption; those of the learning curves, such as Figure 16's, swap the two.
    """
    _, (_, *sigmas), *lines = _table(text, after=f"### {section} ", header="$\\lambda$")
    where = f"section {section}, table of Figure {figure}"
    corners = {("0.0", "1.0"): "pure random init", ("1.0", "0.0"): "pure warm start"}
    test = "the table says test accuracy; the paper's accuracies are on held-out training data"
    for lam, *cells in lines:
        for column, (sigma, cell) in enumerate(zip(sigmas, cells, strict=True)):
            corner = corners.get((lam, sigma), "") if cell else "left blank: could not be trained"
            condition = f"{trained}; strategy=shrink_perturb; lambda={lam}; sigma={sigma}"
            if column < len(sigmas) // 2:
                yield _accuracy(row, condition, cell, where, corner, test if cell else "")
            else:
                yield _minutes(row, condition, cell, where, corner)


def _accuracy(row: str, condition: str, cell: str, where: str, *notes: str) -> PublishedNumber:
    return _number(row, condition, "validation_accuracy", cell, "percent", where, notes)


def _minutes(row: str, condition: str, cell: str, where: str, *notes: str) -> PublishedNumber:
    return _number(row, condition, "train_seconds", cell, "minutes", where, notes)


def _number(
    row: str, condition: str, metric: str, cell: str, unit: str, where: str, notes: tuple[str, ...]
) -> PublishedNumber:
    value, spread = value_and_spread(cell)
    if len(spread.partition(".")[2]) > 1:
        notes = (*notes, "the spread has two decimals where others have one")
    note = "; ".join(filter(None, notes))
    seeds = "5"  # section 3: "All experiments were run five times"; section 2.1 and the appendix say nothing themselves
    return PublishedNumber(row, condition, metric, value, spread, "std" if spread else "", seeds, unit, where, note)


def _table(text: str, after: str, header: str) -> Table:
    """The first table after a piece of text: its cells, from the line that begins with `header` to a line without."""
    lines = text[text.index("\n" + header, text.index(after)) + 1 :].splitlines()
    table = []
    for line in lines:
        if "\t" not in line:
            break
        table.append([cell.removeprefix("<b>").removesuffix("</b>") for cell in line.split("\t")])
    return table


def _trained(data: str, column: str) -> str:
    model, optimizer = column.split()
    return f"data.name={data}; model.name={MODELS[model]}; training.optimizer.name={optimizer.lower()}"


def _power(cell: str) -> str:
    r"""A power of ten as a decimal number.

    >>> _power(r"$1 \times 10^{-3}$")
    '0.001'
    """
    match = re.fullmatch(r"\$1 \\times 10\^\{-(\d)\}\$", cell)
    return "0." + "1".rjust(int(match[1]), "0") if match else cell


def _found(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"the text has no {pattern}")
    return match.groups()


if __name__ == "__main__":
    print_csv(numbers)
