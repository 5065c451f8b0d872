"""The stream `pretrain` as a scenario says it: what cells share, what fits, and what a mistake is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from warmstart_sim import scenario as scenarios
from warmstart_sim.datasets.known_sizes import IMAGE_SETS
from warmstart_sim.errors import DataError, WarmstartError
from warmstart_sim.scenario import round_sizes, splits
from warmstart_sim.scenario.resolved import resolved_scenario
from warmstart_sim.scenario.yaml_files import set_path, set_values
from warmstart_sim.types import Dataset, Samples

NOWHERE = Path("no-such-folder")
Edit = Callable[..., dict[str, Any]]


@pytest.fixture
def pretrained(edited) -> Edit:
    """A copy of a valid scenario that pre-trains on digits for noisy digits, with changes."""

    def edit(changes: dict[str, Any] | None = None) -> dict[str, Any]:
        raw = edited({"data": "noisy_digits", "stream": {"name": "pretrain", "source": "digits"}})
        for key, value in (changes or {}).items():
            set_path(raw, key, value)
        return raw

    return edit


def cells(raw: dict[str, Any]) -> list[scenarios.Cell]:
    return scenarios.plan(raw, "f.yaml")[1]


def phases(raw: dict[str, Any]) -> set[str]:
    return {phase.id for phase in scenarios.first_phases(cells(raw))}


def checked(raw: dict[str, Any]) -> list[list[int]]:
    """The training sizes of all first phases and cells, as `check` and `run` find them out."""
    found = cells(raw)
    return [
        [each.train for each in sizes]
        for sizes in round_sizes.checked_round_sizes([*scenarios.first_phases(found), *found], NOWHERE, "f.yaml")
    ]


# What cells share.


def test_all_arms_and_fractions_of_a_seed_share_one_first_phase(pretrained):
    raw = pretrained({"vary": {"stream.fraction": [0.1, 0.5, 1], "strategies.shrink_perturb.lambda": [0, 0.5, 1]}})
    assert len(cells(raw)) == 2 * 3 * (1 + 3 + 1)
    assert len(phases(raw)) == 2
    assert phases({**raw, "seeds": [0]}) < phases(raw)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("strategies.mine.augment", ["random_crop"]),
        ("strategies.mine.training", {"batch_size": 4, "until": {"steps": 5}, "optimizer": {"lr": 1.0}}),
        ("strategies.shrink_perturb.sigma", 1.0),
        ("stream.fraction", 0.3),
        ("stream.order", "balanced"),
        ("stream.head", "fresh"),
        ("stream.rounds", 1),
        ("data.train_samples", 50),
        ("data.test_samples", 50),
        ("data.noise", 3.0),
        ("data", {"name": "synthetic", "like": "digits"}),
    ],
)
def test_what_concerns_arms_or_the_target_does_not_change_the_first_phase(pretrained, key, value):
    assert phases(pretrained({key: value})) == phases(pretrained())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("stream.source", {"name": "synthetic", "like": "digits"}),
        ("stream.source.fraction", 0.5),
        ("stream.source.train_samples", 50),
        ("stream.source.test_samples", 50),
        ("stream.source.validation_fraction", 0.5),
        ("stream.source.normalize", "half"),
        ("stream.source.adapt", "pad"),
        ("stream.source.training", {"batch_size": 4}),
        ("training.batch_size", 4),  # which the source's training inherits, as the two below
        ("data.validation_fraction", 0.5),
        ("data.normalize", "none"),
        ("model.widths", [9]),
        ("measure.each_epoch", ["accuracy"]),
        ("seeds", [7]),
    ],
)
def test_what_decides_the_first_phase_changes_it_and_all_cells(pretrained, key, value):
    before, after = pretrained(), pretrained({key: value})
    assert not phases(before) & phases(after)
    assert not {cell.id for cell in cells(before)} & {cell.id for cell in cells(after)}


def test_what_the_source_says_itself_does_not_follow_the_target(pretrained):
    own = {"normalize": "half", "validation_fraction": 0.1, "training": {"batch_size": 5}}
    changes = {f"stream.source.{key}": value for key, value in own.items()}
    other = {"data.normalize": "none", "data.validation_fraction": 0.5, "training.batch_size": 6}
    assert phases(pretrained(changes)) == phases(pretrained({**changes, **other}))


PAIRS = {
    "digits to noisy": {"stream.source": "digits", "data": "noisy_digits"},
    "digits to synthetic": {"stream.source": "digits", "data": {"name": "synthetic", "like": "digits"}},
    "noisy to digits": {"stream.source": "noisy_digits", "data": "digits"},
}


@pytest.mark.parametrize(
    ("source", "count"),
    [({}, 2), ({"adapt": "resize"}, 3), ({"normalize": "half"}, 2), ({"fraction": "same"}, 4), ({"fraction": 0.5}, 2)],
)
def test_pairs_share_the_first_phase_of_a_source_unless_it_hangs_on_the_target(pretrained, source, count):
    pairs = {
        label: {**each, "stream.source": {"name": each["stream.source"], **source}} for label, each in PAIRS.items()
    }
    raw = pretrained({"seeds": [0], "vary": {"pair": pairs, "stream.fraction": [0.5, 1.0]}})
    assert len(phases(raw)) == count


def test_with_the_targets_normalisation_there_is_a_first_phase_for_each_target(pretrained):
    source = {"name": "cifar10", "normalize": "target"}
    pairs = {name: {"data": name} for name in ("cifar100", "svhn")}
    raw = pretrained({"stream.source": source, "model": "small_cnn", "seeds": [0], "vary": {"pair": pairs}})
    assert len(phases(raw)) == 2
    del source["normalize"]
    assert len(phases(raw)) == 1


def test_fraction_same_takes_the_targets_share_of_the_source(pretrained):
    raw = pretrained({"stream.source.fraction": "same", "vary": {"stream.fraction": [0.25, 0.5]}, "seeds": [0]})
    sizes = {cell.first_phase.id: round_sizes.round_sizes(cell.first_phase, NOWHERE)[0].train for cell in cells(raw)}
    assert list(sizes.values()) == [round(0.25 * 1198), 599]


def test_a_checkpoint_has_no_first_phase_and_is_part_of_the_id(pretrained):
    one, other = (pretrained({"stream": {"name": "pretrain", "checkpoint": name}}) for name in ("a.pt", "b.pt"))
    assert phases(one) == set()
    assert not {cell.id for cell in cells(one)} & {cell.id for cell in cells(other)}


def test_which_weights_of_a_checkpoint_are_taken_is_part_of_the_id(pretrained):
    stream = {"name": "pretrain", "checkpoint": "a.pt"}
    default, unset, ema = (
        pretrained({"stream": {**stream, **more}}) for more in ({}, {"weights": None}, {"weights": "ema"})
    )
    ids = [{cell.id for cell in cells(raw)} for raw in (default, unset, ema)]
    assert ids[0] == ids[1]
    assert not ids[0] & ids[2]


def test_a_first_phase_is_a_cell_of_its_own(pretrained):
    cell = cells(pretrained({"stream.source": {"name": "digits", "fraction": 0.5, "validation_fraction": 0.1}}))[0]
    phase = cell.first_phase
    assert (phase.arm.start.name, phase.arm.parts, phase.varied) == ("random_init", (), {})
    assert phase.first_phase is None
    assert phase.settings["data"]["name"] == "digits"
    dealt = splits.split_rounds(phase, np.arange(1000) % 10, 7)
    assert (len(dealt.validation), [len(each.train) for each in dealt.rounds]) == (100, [450])
    assert [each.index for each in dealt.rounds] == [0]


# What is dealt.


def test_the_target_is_round_1_and_its_subsets_are_nested(pretrained):
    raw = pretrained({"vary": {"stream.fraction": [0.1, 0.4, 1.0]}, "data.validation_fraction": 0.2})
    for seed in (0, 1):
        dealt = [
            splits.split_rounds(cell, np.arange(1000) % 10, 7)
            for cell in cells(raw)
            if (cell.seed, cell.arm.label) == (seed, "mine")
        ]
        assert [[each.index for each in one.rounds] for one in dealt] == [[1], [1], [1]]
        small, middle, whole = (set(one.rounds[0].train) for one in dealt)
        assert small < middle < whole
        assert [len(small), len(middle), len(whole)] == [80, 320, 800]
        assert all(np.array_equal(one.validation, dealt[0].validation) for one in dealt)
        assert not whole & set(dealt[0].validation)


def test_first_phases_count_once_and_need_no_data_that_are_known_by_name(pretrained):
    raw = pretrained({"stream.source": "cifar100", "data": "svhn", "model": "small_cnn", "seeds": [0]})
    raw["vary"] = {"stream.fraction": [0.5, 1]}
    assert checked(raw) == [[50_000], *[[36_628]] * 3, *[[73_257]] * 3]


# What fits.


@pytest.mark.parametrize("name", ["digits", "noisy_digits"])
def test_the_inputs_that_are_known_without_the_data_are_those_of_the_data(name, tmp_path):
    dataset = splits.load_by_name(name, [], tmp_path)
    assert (dataset.input_shape, dataset.train.inputs.dtype) == (IMAGE_SETS[name].shape, IMAGE_SETS[name].dtype)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"stream.source": "mnist"},
            "stream.source.adapt: mnist has inputs of shape (1, 28, 28), the target of shape (1, 8, "
            "8); say how to adapt them: resize or pad",
        ),
        (
            {"stream.source": "digits", "data": "cifar10"},
            "stream.source.adapt: digits has inputs of shape (1, 8, 8), the target of shape (3, 32, 32); say how to "
            "adapt them: resize or pad",
        ),
        (
            {"stream.source": {"name": "digits", "normalize": "target"}},
            "stream.source.normalize: digits has uint8 inputs, the target float32 ones; one "
            "normalisation fits both only where they are of one kind",
        ),
        *(
            (
                {"stream.source": source, "data": target},
                f"stream.source: {source} for {target}: the words of two sets have different numbers, so that an "
                "embedding of one means nothing to the other; give weights for the same words as stream.checkpoint",
            )
            for source, target in (("imdb", "digits"), ("synthetic_text", "imdb"), ("digits", "synthetic_text"))
        ),
        (
            {"stream.source": "synthetic", "stream.source.shape": [2, 8, 8], "stream.source.adapt": "resize"},
            "stream.source: synthetic has inputs of shape (2, 8, 8), the target of shape (1, 8, 8); "
            "channels can only be converted between 1 and 3",
        ),
        (
            {"stream.source.fraction": 1e-4},
            "stream.source.fraction: 0.0001 of 1198 training samples leaves none",
        ),
        ({"stream.fraction": 1e-4}, "stream.fraction: 0.0001 of 1198 training samples leaves none"),
        (
            {"stream.source.validation_fraction": 0.9999},
            "stream.source.validation_fraction: 0.9999 of 1198 samples leaves none to train on",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_before_anything_is_loaded(pretrained, changes, line):
    with pytest.raises(WarmstartError) as caught:
        checked(pretrained(changes))
    assert str(caught.value) == f"f.yaml: {line}"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("order", [1, -1])
def test_every_target_of_a_shared_first_phase_has_to_fit(pretrained, order):
    targets = ["digits", "mnist"][::order]
    raw = pretrained({"data": {"name": "synthetic", "like": "digits"}, "vary": {"data.like": targets}})
    with pytest.raises(WarmstartError, match=r"inputs of shape \(1, 8, 8\), the target of shape \(1, 28, 28\)"):
        checked(raw)


def test_an_absent_checkpoint_is_missing_data(pretrained):
    with pytest.raises(DataError, match=r"^f\.yaml: stream\.checkpoint: there is no file w\.pt$"):
        checked(pretrained({"stream": {"name": "pretrain", "checkpoint": "w.pt"}}))


def test_a_users_own_source_is_asked_for_its_shape(pretrained, tmp_path, monkeypatch):
    (tmp_path / "their_source.py").write_text(
        "import numpy as np\nfrom warmstart_sim import Dataset, Samples\ndef load(root, seed, *, side=8):\n"
        "    samples = Samples(np.zeros((4, 1, side, side), np.uint8), np.array([0, 1, 0, 1]))\n"
        "    return Dataset('theirs', samples, samples, classes=2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = {"name": "their_source:load"}
    assert checked(pretrained({"stream.source": own, "seeds": [0]}))[0] == [4]
    with pytest.raises(WarmstartError, match=r"stream\.source\.adapt: theirs has inputs of shape \(1, 5, 5\)"):
        checked(pretrained({"stream.source": {**own, "side": 5}}))
    assert checked(pretrained({"stream.source": {**own, "side": 5, "adapt": "pad"}, "seeds": [0]}))[0] == [4]


# Mistakes.

FRACTION = "(allowed: a number > 0 and <= 1)"
SHARE = "(allowed: a number > 0 and <= 1 or 'same')"
SOURCE_KEYS = (
    "(allowed here: name, validation_fraction, normalize, train_samples, test_samples, label_noise, "
    "fraction, adapt, training)"
)


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("stream.fraction=0", f"stream.fraction: found 0 {FRACTION}"),
        ("stream.fraction=-0.1", f"stream.fraction: found -0.1 {FRACTION}"),
        ("stream.fraction=1.01", f"stream.fraction: found 1.01 {FRACTION}"),
        ("stream.fraction=.nan", "stream.fraction: found nan (allowed: a finite number > 0 and <= 1)"),
        ("stream.fraction=half", f"stream.fraction: found 'half' {FRACTION}"),
        ("stream.fraction=true", f"stream.fraction: found true {FRACTION}"),
        ("stream.source.fraction=0", f"stream.source.fraction: found 0 {SHARE}"),
        ("stream.source.fraction=2", f"stream.source.fraction: found 2 {SHARE}"),
        ("stream.source.fraction=all", f"stream.source.fraction: found 'all' {SHARE}"),
        (
            "stream.source=noisy_digits",
            "stream.source: 'noisy_digits' is the target itself; `stream: split` trains on a part of it first",
        ),
        (
            "stream.source=null",
            "stream.source: is missing: the data set to pre-train on, or `checkpoint` for a file",
        ),
        ("stream=pretrain", "stream.source: is missing: the data set to pre-train on, or `checkpoint` for a file"),
        ("stream.checkpoint=w.pt", "stream.checkpoint: takes the place of `source`; give one of the two"),
        ("stream.checkpoint=3", "stream.checkpoint: found 3 (allowed: a path)"),
        ("stream.weights=ema", "stream.weights: says which weights of `checkpoint` to take; give both"),
        ("stream.head=old", "stream.head: found 'old' (allowed: 'keep', 'fresh')"),
        ("stream.source=[digits]", "stream.source: found ['digits'] (allowed: a name, or a mapping)"),
        ("stream.source=3", "stream.source: found 3 (allowed: a name, or a mapping)"),
        ("stream.source.adapt=stretch", "stream.source.adapt: found 'stretch' (allowed: 'resize', 'pad')"),
        ("stream.source.training=9", "stream.source.training: found 9 (allowed: a mapping)"),
        (
            "stream.source.training.batch_size=0",
            "stream.source.training.batch_size: found 0 (allowed: a whole number > 0)",
        ),
        ("stream.source.train_samples=0", "stream.source.train_samples: found 0 (allowed: a whole number > 0)"),
        ("stream.source.frction=1", f"stream.source.frction: unknown key; did you mean 'fraction'? {SOURCE_KEYS}"),
        ("stream.source.rounds=1", f"stream.source.rounds: unknown key {SOURCE_KEYS}"),
        (
            "stream.sorce=svhn",
            "stream.sorce: unknown key; did you mean 'source'? (allowed here: name, rounds, "
            "changes, first_phase_epochs, checkpoint, weights, head, source, fraction, order)",
        ),
        (
            "stream={name: online, source: digits}",
            "stream.source: unknown key (allowed here: name, rounds, changes, chunk_size, order)",
        ),
        (
            "stream={name: split, checkpoint: w.pt}",
            "stream.checkpoint: unknown key (allowed here: name, rounds, changes, first_phase_epochs, fraction, order, "
            "repeats)",
        ),
        (
            "stream.source.name=a:b:c",
            "stream.source.name: found 'a:b:c'; your own data set is named module:attribute",
        ),
        (
            "stream.source.training.until={validation_patience: 3}",
            "stream.source.training.until.validation_patience: needs validation data; set "
            "stream.source.validation_fraction above 0",
        ),
        (
            "stream.source.normalize=targe",
            "stream.source.normalize: found 'targe'; did you mean 'target'? "
            "(allowed: 'train', 'cifar10', 'imagenet', 'half', 'none', 'target')",
        ),
        (
            "data.normalize=target",
            "data.normalize: found 'target' (allowed: 'train', 'cifar10', 'imagenet', 'half', 'none')",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(pretrained, assignment, line):
    with pytest.raises(WarmstartError) as caught:
        cells(set_values(pretrained(), [assignment]))
    assert str(caught.value) == f"f.yaml: {line}"


def test_the_name_of_a_source_has_a_nearest_match(pretrained):
    with pytest.raises(WarmstartError, match=r"stream\.source\.name: unknown data set 'svnh'; did you mean 'svhn'\?"):
        cells(pretrained({"stream.source": "svnh"}))


@pytest.mark.parametrize("place", ["data", "stream.source"])
def test_early_stopping_needs_validation_data_in_both_phases(pretrained, place):
    fractions = {"data.validation_fraction": 0.2, "stream.source.validation_fraction": 0.2}
    until = {"training.until": {"validation_patience": 3}}
    assert cells(pretrained({**fractions, **until}))
    with pytest.raises(WarmstartError, match=rf"until\.validation_patience: needs validation data; set {place}\."):
        cells(pretrained({**fractions, **until, f"{place}.validation_fraction": 0}))


# Classes that a subset loses.


def imbalanced(samples: int = 40) -> Callable[..., Dataset]:
    labels = np.array([0] * (samples - 1) + [1], dtype=np.int64)

    def load(root: Path, seed: int) -> Dataset:
        inputs = np.zeros((samples, 1, 8, 8), dtype=np.float32)
        return Dataset("imbalanced", Samples(inputs, labels), Samples(inputs, labels), classes=3, notes=("a note",))

    return load


def lost(raw: dict[str, Any]) -> list[str]:
    found = cells(raw)
    return splits.data_notes([*scenarios.first_phases(found), *found], NOWHERE)


def test_classes_that_a_fraction_loses_are_noted_for_each_seed_and_set(pretrained):
    raw = pretrained({"data": imbalanced(), "stream.fraction": 0.05})
    assert lost(raw) == [
        "a note",
        "imbalanced, seed 0: the 2 training samples of the first round lack 1 of 3 classes (1)",
        "imbalanced, seed 1: the 2 training samples of the first round lack 1 of 3 classes (1)",
    ]
    assert lost(pretrained({"data": imbalanced(), "stream.fraction": 1.0})) == ["a note"]


def test_classes_that_the_sources_share_loses_are_noted_as_well(pretrained):
    raw = pretrained({"stream.source.fraction": 0.001, "seeds": [0]})
    (note,) = lost(raw)
    assert note.startswith("digits, seed 0: the 1 training samples of the first round lack 9 of 10 classes (")
    assert note.endswith(" ...)")


def test_classes_that_a_limit_loses_are_noted_too(pretrained):
    (note,) = lost(pretrained({"data.train_samples": 1, "seeds": [0]}))
    assert note.startswith("noisy_digits, seed 0: the 1 training samples of the first round lack 9 of 10 classes (")


def test_nothing_is_noted_where_every_class_is_there(pretrained):
    assert lost(pretrained({"stream.fraction": 0.3})) == []


# The record of a run is a scenario that means the same cells.


def build(input_shape: tuple[int, ...], classes: int) -> None: ...


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stream.source": {"name": "digits", "normalize": "half", "training": {"until": {"epochs": 3}}}},
        {"stream.head": "fresh", "stream.rounds": 1, "stream.order": "balanced"},
        {"stream.source.training": {"optimizer": {"lr": 1}}, "vary": {"training.optimizer.name": ["sgd", "adam"]}},
        {"stream": {"name": "pretrain", "checkpoint": Path("w.pt"), "fraction": 0.5}},
        {"stream": {"name": "pretrain", "checkpoint": "w.pt", "weights": "state_dict_ema"}},
        {"stream.source": None, "vary": {"stream.checkpoint": ["a.pt", "b.pt"]}},
        {"stream.source": "my_module:load", "vary": {"stream.source.side": [5, 6]}},
        {"vary": {"stream.source.training.until": [{"epochs": 3}, {"steps": 4}]}},
        {"vary": {"stream.source": ["digits", {"name": "synthetic", "like": "digits"}]}},
        {"vary": {"pair": PAIRS, "stream.fraction": [0.1, 1.0]}},
        {
            "vary": {
                "pair": {
                    a: {"data.name": a, "stream.source.name": b}
                    for a, b in (("mnist", "cifar10"), ("cifar10", "mnist"))
                }
            }
        },
        {
            "vary": {
                "from": {
                    "a source": {"stream.source": "digits", "stream.checkpoint": None},
                    "a file": {"stream.source": None, "stream.checkpoint": "w.pt"},
                }
            }
        },
        {"vary": {"stream": {"a": {"stream": {"name": "pretrain", "source": "digits"}}, "b": {"stream": "static"}}}},
    ],
)
def test_the_record_means_the_same_cells(pretrained, changes):
    raw = pretrained(changes)
    again = yaml.safe_load(yaml.safe_dump(resolved_scenario(raw, scenarios.plan(raw, "f.yaml")[0]), sort_keys=False))
    assert [(cell.id, cell.varied) for cell in cells(again)] == [(cell.id, cell.varied) for cell in cells(raw)]
    assert phases(again) == phases(raw)


@pytest.mark.parametrize("mapped", [False, True])
def test_a_users_objects_have_names_in_the_record(pretrained, mapped):
    load = imbalanced()
    source = {"name": load, "adapt": "pad"} if mapped else load
    pairs = {"there": {"stream.source": load, "data": "digits"}, "back": {"stream.source": "digits", "data": load}}
    for changes in ({"stream.source": source, "data": "digits", "model": build}, {"vary": {"pair": pairs}}):
        raw = pretrained(changes)
        again = yaml.safe_load(
            yaml.safe_dump(resolved_scenario(raw, scenarios.plan(raw, "f.yaml")[0]), sort_keys=False)
        )
        assert [cell.id for cell in cells(again)] == [cell.id for cell in cells(raw)]
        assert phases(again) == phases(raw)
