"""The numbers of Alabdulmohsin et al. (2021), "The Impact of Reinitialization on Generalization in CNNs".

    python tools/published_numbers/alabdulmohsin.py PAPER_TEXT > warmstart_sim/published/alabdulmohsin.csv

The conversion to text ran some rows of Tables 2 and 7 together and lost numbers; the notes say how each was read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from published_number import PublishedNumber, print_csv, stated

METHODS = ["baseline", "welsr", "dsd", "wels", "fc", "layerwise"]  # in the order of all tables: B, R, D, W, F, L
MODELS = {"scnn": "simple_cnn", "vgg16": "vgg16", "mobilenet": "mobilenet", "resnet50": "resnet50"}
DATA = {
    "OXFORD-IIIT": "oxford_iiit_pet", "DOGS": "stanford_dogs", "FMNIST": "fashion_mnist", "CARS196": "cars196",
    "MNIST-COR": "mnist_corrupted", "CIFAR10-COR": "cifar10_corrupted", "CIFAR10": "cifar10",
    "CALTECH101": "caltech101", "CASSAVA": "cassava", "CMATERDB": "cmaterdb", "BIRDS2010": "birds2010",
    "CIFAR100": "cifar100",
}  # fmt: skip
ACCURACY_TABLES = {
    2: "augment.horizontal_flip=0.5; model.dropout=0",
    6: "model.dropout=0",
    7: "augment.horizontal_flip=0.5; model.dropout=0.25",
}


def two_for_one(cell: str, number: str) -> str:
    """The note on a cell that holds five numbers for four models."""
    return (
        f'the text has five numbers for the four models, "{cell}"; one {number} is taken as doubled. If another number '
        f"is the one too many, simple_cnn or resnet50 is {number} instead"
    )


LOST_RESNET50 = (
    "the text runs the row of oxford_iiit_pet with resnet50 together with the four of stanford_dogs, and has four "
    "numbers for the five; the first is taken as simple_cnn's on stanford_dogs, as all its other numbers are near it"
)
# Cells of Tables 2 and 7 that are broken in the text: what they are read as ("-" for a lost number), and a note.
READ_AS = {
    "scnn vgg16 mobilenet": ("scnn vgg16 mobilenet resnet50", "the fourth label, resnet50, is lost in the text"),
    "14.3 20.9 23.2 30 1": ("14.3 20.9 23.2 30.1", 'the text has "30 1" for 30.1, the number of resnet50'),
    "16.6 29.8 41.7": (
        "16.6 - - -",
        'the text has three numbers for the four models, "16.6 29.8 41.7"; the first is near the other numbers of '
        "simple_cnn, so one of the other three models is without a number",
    ),
    "99.0 98.9 98.9 98. 9 99.1": ("99.0 98.9 98.9 99.1", two_for_one("99.0 98.9 98.9 98. 9 99.1", "98.9")),
    "99.2 99.0 99.0 99.0 99.1": ("99.2 99.0 99.0 99.1", two_for_one("99.2 99.0 99.0 99.0 99.1", "99.0")),
    "8.9 19.7 23.5 33.3": ("- 8.9 19.7 23.5 33.3", LOST_RESNET50),
    "8.0 18.9 22.4 33.8": ("- 8.0 18.9 22.4 33.8", LOST_RESNET50),
    "9.6 34.9 20.5 34.5": ("- 9.6 34.9 20.5 34.5", LOST_RESNET50),
    "9.1 35.9 35.0 40.1": ("- 9.1 35.9 35.0 40.1", LOST_RESNET50),
}
# The numbers of a broken cell whose model is not certain.
UNASSIGNED = {"16.6 29.8 41.7": {"29.8": "vgg16 or mobilenet", "41.7": "mobilenet or resnet50"}}


def synthetic_table(text: str) -> Iterator[PublishedNumber]:
    """Table 1: accuracy on synthetic data, mean (± spread); the baseline's at alpha = 0.5 is lost in the text."""
    for alpha, *cells in re.findall(r"^(0\.5|1\.0|2\.0)" + r"\t(.*)" * 6 + "$", text, re.MULTILINE):
        for method, cell in zip(METHODS, cells, strict=True):
            mean = re.fullmatch(r"([\d.]+) \(± ?([\d.]+)\)", cell.strip("$").replace(r"\pm ", "±"))
            if mean:
                condition = f"alpha={alpha}; strategy={method}"
                yield PublishedNumber("D-T1", condition, "test_accuracy", *mean.groups(), "unknown", where="Table 1")


def accuracy_table(text: str, table: int) -> Iterator[PublishedNumber]:
    """Tables 2, 6 and 7: a row for each data set and model, a column for each method."""
    data = ""
    for line in text.partition(f"Table {table}: Test accuracy results")[2].split("\n\n")[1].splitlines()[1:]:
        label, labels, *columns = line.split("\t")
        models, label_note = READ_AS.get(labels, (labels, ""))
        rows = [(DATA[label.upper()] if label else data, model) for model in models.split()]
        if len(rows) == 5:  # the last row of the data set before stands in the same line
            rows[0] = (data, rows[0][1])
        data = rows[-1][0]
        for method, cell in zip(METHODS, columns, strict=True):
            values, cell_note = READ_AS.get(cell, (cell, ""))
            note = "; ".join(filter(None, [label_note, cell_note]))
            for (dataset, model), value in zip(rows, values.split(), strict=True):
                if value != "-":
                    yield _accuracy(table, f"data.name={dataset}; model.name={MODELS[model]}", method, value, note)
            for value, candidates in UNASSIGNED.get(cell, {}).items():
                uncertain = f"of {candidates}, not certain which: {cell_note}"
                yield _accuracy(table, f"data.name={data}", method, value, uncertain)


def _accuracy(table: int, condition: str, method: str, value: str, note: str) -> PublishedNumber:
    condition = f"{condition}; {ACCURACY_TABLES[table]}; strategy={method}"
    return PublishedNumber(f"D-T{table}", condition, "test_accuracy", value, where=f"Table {table}", note=note)


def significance_table(text: str) -> Iterator[PublishedNumber]:
    """Table 3: how many of two tests say that the method of a column beats that of a row; the text has "0" for ∘."""
    lines = text.partition("Table 3: ")[2].split("\n\n")[1].splitlines()[2:]
    no_row = [""] * 25  # the last row, LW's, is left out as it is empty
    for beaten, line in zip(METHODS, [*(line.split("\t") for line in lines), no_row], strict=True):
        for model, columns in zip(MODELS.values(), range(1, 25, 6), strict=True):
            for method, symbol in zip(METHODS, line[columns : columns + 6], strict=True):
                if method == beaten:
                    continue
                yield PublishedNumber(
                    "D-T3", f"model.name={model}; strategy={method}; versus={beaten}", "significance",
                    {"": "0", "*": "1", "0": "2"}[symbol], unit="tests passed", where="Table 3",
                    note={"": "blank", "*": "a star: at the 95 % level",
                          "0": "a circle: at the 95 % level, also after Holm's correction"}[symbol],
                )  # fmt: skip


def penalty_table(text: str) -> Iterator[PublishedNumber]:
    """Table 4: accuracy on synthetic data by L2 penalty."""
    for penalty, *values in re.findall(r"^(0\.\d+)\t(0\.\d+)\t(0\.\d+)\t(0\.\d+)$", text, re.MULTILINE):
        for method, value in zip(["baseline", "rescaling", "layerwise"], values, strict=True):
            yield PublishedNumber(
                "D-T4", f"alpha=0.5; l2={penalty}; strategy={method}", "test_accuracy", value, seeds="100",
                unit="fraction", where="Table 4",
                note="headed LW; its five rounds are those of Appendix A" if method == "layerwise" else "",
            )  # fmt: skip


SYNTHETIC = "section 1.1, Results"
ABLATION = "Appendix F, Reinitialization"
FREEZING = "Appendix F, Fine-tuning vs. Freezing"
NORMALIZATION = "Appendix F, Normalization"
SAME_SCALE = "alpha = 1 by the paragraph after it"
NO_MOMENTUM = '"around"; "momentum is not used here", but Appendix E, to which it refers, lists 0.005'
STEADY = f"in all rounds, similar to the baseline; {NO_MOMENTUM}"
VGG_10 = "data.name=cifar10; model.name=vgg16; model.norm=layer"
VGG_100 = "data.name=cifar100; model.name=vgg16; model.norm=layer"
BARE = "data.name=cifar100; model.name=vgg16; model.norm=none"
FROZEN = f"{BARE}; strategy=layerwise_frozen"
UNNORMALIZED = f"{BARE}; strategy=layerwise_without_normalization"
PROSE = [
    ("(BL) achieves 100% training accuracy", "D-T1", "alpha=1.0; strategy=baseline", "train_accuracy", "100",
     "percent", SYNTHETIC, SAME_SCALE),
    ("but only around 51% test accuracy", "D-T1", "alpha=1.0; strategy=baseline", "test_accuracy", "51",
     "percent", SYNTHETIC, f'"around"; {SAME_SCALE}'),
    ("The training accuracy is 100% in all cases", "D-T1", "", "train_accuracy", "100",
     "percent", SYNTHETIC, "of all methods"),
    ("100% training accuracy in all combinations of models and datasets", "D-T2", "", "train_accuracy", "100",
     "percent", "section 3, third paragraph", "of all methods, in Tables 6 and 7 as well"),
    ("The density of the ratio in LW is concentrated around 1", "D-F7", "strategy=layerwise", "weight_size_ratio", "1",
     "", "Figure 7, caption", '"around"; relative to the baseline'),
    ("in CIFAR10 remains at around 66%", "D-AF", f"{VGG_10}; strategy=rescaling_and_normalization", "test_accuracy",
     "66", "percent", ABLATION, STEADY),
    ("in CIFAR100 at around 34% in all rounds", "D-AF", f"{VGG_100}; strategy=rescaling_and_normalization",
     "test_accuracy", "34", "percent", ABLATION, STEADY),
    ("it reaches around 75% in CIFAR10", "D-AF", f"{VGG_10}; strategy=layerwise", "test_accuracy", "75",
     "percent", ABLATION, NO_MOMENTUM),
    ("and around 42% in CIFAR100", "D-AF", f"{VGG_100}; strategy=layerwise", "test_accuracy", "42",
     "percent", ABLATION, NO_MOMENTUM),
    ("the training accuracy stays at 100% after each round", "D-AF", f"{FROZEN}; round=0", "train_accuracy", "100",
     "percent", FREEZING, '"after each round until about round 5"'),
    ("until about round 5 before it drops to 1%", "D-AF", FROZEN, "round_of_collapse", "5",
     "rounds", FREEZING, '"about"; as the paper counts rounds'),
    ("stays at 1% training accuracy throughout the subsequent rounds", "D-AF", FROZEN, "train_accuracy", "1",
     "percent", FREEZING, ""),
    ("drops from about 34% to 24%", "D-AF", f"{UNNORMALIZED}; round=0", "test_accuracy", "34",
     "percent", NORMALIZATION, '"about"; before the drop, taken as the first round'),
    ("drops from about 34% to 24%", "D-AF", UNNORMALIZED, "test_accuracy", "24", "percent", NORMALIZATION, ""),
    ("With the normalization layers inserted by LW, it *improves* to 42%", "D-AF", f"{BARE}; strategy=layerwise",
     "test_accuracy", "42", "percent", NORMALIZATION, ""),
]  # fmt: skip


def numbers(text: str) -> Iterator[PublishedNumber]:
    """All numbers, table by table, then those of sentences and captions."""
    yield from synthetic_table(text)
    yield from accuracy_table(text, 2)
    yield from significance_table(text)
    yield from penalty_table(text)
    yield from accuracy_table(text, 6)
    yield from accuracy_table(text, 7)
    yield from stated(text, PROSE)


if __name__ == "__main__":
    print_csv(numbers)
