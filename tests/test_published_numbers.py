"""The published numbers of the four papers, and the list of the papers' rows."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

import warmstart_sim

PUBLISHED = Path(warmstart_sim.__file__).parent / "published"
# From the shapes of the papers' tables: lines x columns.
COUNTS = {
    "ash_adams": {
        "A-T1": 6 * 6,  # 3 data sets x 2 starts; 3 models x 2 optimisers
        "A-T2": 3 * 6,
        "A-T3": 6 * 4,  # 3 kinds of regularisation x 2 starts; 4 strengths
        "A-T4": 2 * 5 + 2,  # accuracy and minutes; 5 deviations, and random init
        "A-T5": 3 * 4,
        "A-F6": 1,
        "A-F15": 6 * 12,  # lambdas; accuracy and minutes for 6 noise scales
        "A-F21": 6 * 12,
    },
    "kireev": {"B-T1a": 6 * 3, "B-T1b": 6 * 3, "B-T1c": 6 * 3, "B-T2": 2 * 3, "B-F3": 1, "B-F7": 4},
    "zaidi": {
        "C-T1": 4 * 6 + 3,  # settings x methods; 3 gains in the prose
        "C-T2": 4 * 7 - 2 + 3,  # SGDR is not applicable in two settings; the same gains
        "C-T3": 2 * 3,
        "C-T4": 2 * 2,
        "C-T5": 6
        + (3 + 5 + 5)
        + 7
        + 2
        + 3,  # budget and stages; other grids; normalisation, padding; lambda, sigma; pairs
        "C-T6": 6 + (3 + 3 + 4) + 7 + 1,
        "C-F2": 3,
        "C-F4": 2,
        "C-F5": 2 + 2 + 4,
        "C-F6": 1,
        "C-F10": 1,
    },
    "alabdulmohsin": {
        "D-T1": 3 * 6 - 1 + 3,  # one number is lost in the text; 3 in the prose
        "D-T2": 12 * 4 * 6 - 1 + 1,  # one lost; one in the prose
        "D-T3": 4 * 6 * 5,
        "D-T4": 6 * 3,
        "D-T6": 12 * 4 * 6,
        "D-T7": 12 * 4 * 6 - 4,  # four lost
        "D-F7": 1,
        "D-AF": 10,
    },
}
# Typed by hand from the papers.
SAMPLE = {
    "ash_adams": """
        A-T1 | cifar10, resnet18, sgd, warm_start | 51.7 (0.9)
        A-T1 | svhn, mlp, adam, random_init | 76.7 (0.4)
        A-T1 | svhn, logistic_regression, adam, warm_start | 22.2 (0.9)
        A-T1 | cifar100, resnet18, adam, random_init | 41.4 (0.2)
        A-T1 | cifar100, logistic_regression, sgd, random_init | 16.9 (0.18)
        A-T2 | cifar10, resnet18, sgd | 41.7 (7.9)
        A-T2 | cifar100, mlp, adam | 10.5 (0.3)
        A-T3 | random_init, l2_strength=0.1 | 72.7 (4.2)
        A-T3 | warm_start, adversarial_epsilon=0.0001 | 50.4 (1.4)
        A-T3 | warm_start, confidence_penalty_strength=0.01 | 50.0 (3.8)
        A-T4 | noise_only, sigma=0.01, validation_accuracy | 54.4 (0.9)
        A-T4 | noise_only, sigma=0.01, train_seconds | 165.3 (3.9)
        A-T4 | noise_only, sigma=0.00001, train_seconds | 14.6 (91.0)
        A-T4 | random_init, train_seconds | 34.0
        A-T5 | svhn, last_layer, round=2 | 88.2 (0.2)
        A-T5 | cifar100, random_init | 18.2 (0.3)
        A-F15 | lambda=1.0, sigma=0.0, validation_accuracy | 63.7
        A-F15 | lambda=0.0, sigma=0.1, train_seconds | 130
        A-F15 | lambda=0.2, sigma=0.01, validation_accuracy |
        A-F15 | lambda=0.4, sigma=0.001, train_seconds | 84.7
        A-F21 | lambda=0.2, sigma=0.1, validation_accuracy | 82.9
        A-F21 | lambda=0.6, sigma=1.0, train_seconds | 133
        A-F21 | lambda=0.0, sigma=0.0, train_seconds |
    """,
    "kireev": """
        B-T1a | cifar10, resnet18, momentum=0.9, warm_start | 63.4 (0.2)
        B-T1a | svhn, resnet18, momentum=0, warm_start | 86.3 (0.4)
        B-T1a | cifar100, resnet18, adam, random_init | 48.8 (0.2)
        B-T1b | svhn, mlp, lr=0.005, warm_start | 67.3 (1.7)
        B-T1b | cifar100, mlp, adam, warm_start | 18.6 (0.1)
        B-T1c | svhn, logistic_regression, momentum=0.9, random_init | 22.4 (0.4)
        B-T1c | cifar100, logistic_regression, adam, warm_start | 12.2 (0.1)
        B-T2 | weight_decay=0.1, random_init | 81.44
        B-T2 | weight_decay=0.001, warm_start | 58.63
        B-F7 | tanh | 0.2
    """,
    "zaidi": """
        C-T1 | cifar10, standard, setting=none, test_accuracy | 83.8 (0.3)
        C-T1 | self_distillation, setting=DC | 92.6 (0.1)
        C-T1 | shrink_perturb_distilled, setting=D | 94.1 (0.0)
        C-T1 | layerwise_distilled, setting=DCW | 95.0 (0.3)
        C-T2 | cifar100, sgdr, setting=DC | 71.0 (0.6)
        C-T2 | self_distillation, setting=none | 56.4 (0.5)
        C-T2 | layerwise, setting=DC | 74.6 (0.5)
        C-T2 | shrink_perturb, setting=D | 71.9 (0.1)
        C-T2 | shrink_perturb_distilled, setting=none | 63.5 (0.3)
        C-T2 | shrink_perturb_distilled, test_accuracy_gain | 8
        C-T3 | preact_resnet18, shrink_perturb, setting=DCW | 58.95 (0.56)
        C-T4 | imagenet, standard, setting=CW | 59.1
        C-T4 | imagenet, shrink_perturb, setting=DCW | 69.7
        C-T5 | hyperparameter=stages, epochs_per_stage=8 | 25
        C-T5 | normalization_std, channel=1 | 0.224
        C-T6 | total_epochs | 500
        C-F4 | standard, lr=0.005, weight_decay=0 | 67.6
        C-F6 | data.label_noise=0.4 | 15
    """,
    "alabdulmohsin": """
        D-T1 | fc, alpha=0.5 | 23.6 (3.0)
        D-T1 | layerwise, alpha=1.0 | 72.3 (3.6)
        D-T1 | dsd, alpha=2.0 | 90.3 (1.4)
        D-T2 | oxford_iiit_pet, vgg16, fc | 39.1
        D-T2 | oxford_iiit_pet, resnet50, dsd | 30.1
        D-T2 | stanford_dogs, mobilenet, layerwise | 35.8
        D-T2 | cars196, vgg16, fc | 43.6
        D-T2 | cassava, resnet50, baseline | 46.5
        D-T2 | birds2010, simple_cnn, wels | 3.2
        D-T2 | cifar100, resnet50, layerwise | 60.7
        D-T3 | mobilenet, wels, versus=baseline | 1
        D-T3 | resnet50, wels, versus=fc | 2
        D-T3 | simple_cnn, wels, versus=baseline | 0
        D-T3 | vgg16, welsr, versus=dsd | 2
        D-T4 | rescaling, l2=0.01 | 0.89
        D-T4 | layerwise, l2=0.0 | 0.25
        D-T6 | fashion_mnist, vgg16, welsr | 92.6
        D-T6 | mnist_corrupted, resnet50, fc | 99.2
        D-T6 | caltech101, vgg16, fc | 69.1
        D-T6 | cmaterdb, mobilenet, layerwise | 98.6
        D-T7 | oxford_iiit_pet, resnet50, baseline | 33.1
        D-T7 | stanford_dogs, simple_cnn, welsr | 8.9
        D-T7 | stanford_dogs, resnet50, dsd | 33.1
        D-T7 | cifar10_corrupted, vgg16, layerwise | 88.8
        D-T7 | cifar10, mobilenet, wels | 88.5
        D-T7 | birds2010, mobilenet, baseline | 2.5
        D-AF | cifar10, rescaling_and_normalization | 66
        D-AF | layerwise_without_normalization, test_accuracy, round=0 | 34
    """,
}
SAMPLES = [
    (paper, *map(str.strip, line.split("|"))) for paper, lines in SAMPLE.items() for line in lines.strip().splitlines()
]


def rows_of(name):
    with (PUBLISHED / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("paper", COUNTS)
def test_every_cell_of_every_table_is_there_once(paper):
    numbers = rows_of(paper)
    assert Counter(number["row"] for number in numbers) == COUNTS[paper]
    cells = [
        (number["row"], number["condition"], number["metric"])
        for number in numbers
        if "table" in number["where"].lower() and number["metric"] != "grid" and "not certain" not in number["note"]
    ]
    assert len(set(cells)) == len(cells)


@pytest.mark.parametrize(("paper", "row", "condition", "printed"), SAMPLES)
def test_numbers_typed_by_hand_from_the_papers(paper, row, condition, printed):
    found = []
    for number in rows_of(paper):
        said = [f"={number['row']}", f"={number['metric']}", *(f".{each}" for each in number["condition"].split("; "))]
        if all(any(each.endswith((f".{word}", f"={word}")) for each in said) for word in [row, *condition.split(", ")]):
            found.append(f"{number['value']} ({number['spread']})" if number["spread"] else number["value"])
    assert found == [printed]


@pytest.mark.parametrize("paper", COUNTS)
def test_blank_numbers_say_why_and_spreads_say_of_what_kind(paper):
    for number in rows_of(paper):
        if not number["value"]:
            assert number["note"] == "left blank: could not be trained"
        assert bool(number["spread"]) == bool(number["spread_kind"])
        assert all(float(number[key] or 0) >= 0 for key in ("value", "spread", "seeds"))


def test_the_rows_are_those_of_the_four_papers():
    rows = rows_of("rows")
    names = [row["row"] for row in rows]
    assert len(set(names)) == len(names)
    assert Counter(row["paper"] for row in rows) == {"ash_adams": 39, "kireev": 17, "zaidi": 20, "alabdulmohsin": 19}
    kinds = {"F": "figure", "T": "table", "A": "algorithm", "P": "proposition"}
    for row in rows:
        assert row["kind"] == ("analysis" if row["row"] == "D-AF" else kinds[row["row"][2]])
        assert row["title"]
    for paper in COUNTS:
        assert COUNTS[paper].keys() <= set(names)
