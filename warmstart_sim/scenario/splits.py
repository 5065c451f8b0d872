"""Loads a cell's data set and splits its samples into rounds, validation and test. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from warmstart_sim import datasets
from warmstart_sim.datasets.adapt import adapt_images, check_adaptable
from warmstart_sim.datasets.known_sizes import IMAGE_SETS, TEXT_SETS, known_shape
from warmstart_sim.datasets.label_noise import LabelNoise, label_noise
from warmstart_sim.errors import DataError, WarmstartError, error_summary
from warmstart_sim.models.checkpoint_files import find_checkpoint
from warmstart_sim.registry import CHANGES, DATASETS, MODELS, STREAMS
from warmstart_sim.scenario.cells import Cell
from warmstart_sim.scenario.changed_data import (
    changed_dataset,
    changed_rounds,
    check_drift,
    with_test_classes,
)
from warmstart_sim.scenario.component import Component
from warmstart_sim.scenario.planning import plan
from warmstart_sim.scenario.pretraining import Pretraining
from warmstart_sim.scenario.yaml_files import set_values
from warmstart_sim.seeding import scoped_torch_seed
from warmstart_sim.streams import random_subset, split_validation
from warmstart_sim.types import Dataset, IntArray, Round, Samples

MOST_LISTED = 8  # missing classes in one line
MAX_KEPT = 2  # data sets with changes in memory: cells of one seed share them

_changed: dict[str, tuple[Dataset, list[Round]]] = {}


@dataclass(frozen=True)
class CellSplits:
    """What each sample of a cell is for: the same for all arms of a seed.

    Attributes:
        rounds: The rounds; they do not depend on the noise.
        pool: Indices of the samples that may arrive in the training set.
        validation: Indices of the validation samples in the training set.
        test: Indices of the test samples in the test set.
        noise: The labels to train on.
    """

    rounds: list[Round]
    pool: IntArray
    validation: IntArray
    test: IntArray
    noise: LabelNoise


def load_dataset(cell: Cell, data_root: Path) -> Dataset:
    """The cell's data set, kept in memory for later cells; in a first phase, adapted to the target's shape.

    Raises:
        DataError: It is missing or damaged.
        WarmstartError: It has another shape than the target of the first phase, and `adapt` is not set.
    """
    dataset = load_component(cell.data, cell.seed, data_root)
    if cell.target is None:
        return dataset
    target = load_component(cell.target.data, cell.seed, data_root)
    return adapt_images(dataset, target.input_shape, cell.target.adapt)


def check_first_phase(cell: Cell, data_root: Path) -> None:
    """Checks that the source or the checkpoint of a cell's first phase exists and fits the cell's data set.

    Sizes of well-known data sets are built in, so these need not be downloaded.

    Raises:
        DataError: There is no such checkpoint.
        WarmstartError: The source does not fit the target.
    """
    if cell.pretraining and cell.pretraining.checkpoint:
        find_checkpoint(cell.pretraining.checkpoint)
    phase = cell.first_phase
    if phase is None or phase.target is None:
        return
    source, source_shape, source_dtype = inputs_of(phase.data, cell.seed, data_root)
    target, target_shape, target_dtype = inputs_of(phase.target.data, cell.seed, data_root)
    if "int64" in (source_dtype, target_dtype):
        raise WarmstartError(
            f"stream.source: {source} for {target}: the words of two sets have different numbers, so that "
            "an embedding of one means nothing to the other; give weights for the same words as stream.checkpoint"
        )
    if phase.target.normalize and source_dtype != target_dtype:
        raise WarmstartError(
            f"stream.source.normalize: {source} has {source_dtype} inputs, the target {target_dtype} ones; one "
            "normalisation fits both only where they are of one kind"
        )
    check_adaptable(source, source_shape, target_shape, phase.target.adapt)


def inputs_of(component: Component, seed: int, data_root: Path) -> tuple[str, tuple[int, ...], str]:
    """A data set's name, and the shape and dtype of its inputs."""
    if shape := known_shape(component.name, component.options):
        known = IMAGE_SETS.get(component.name)  # type: ignore[call-overload]
        return component.name, shape, known.dtype if known else "uint8"
    if component.name in TEXT_SETS:
        return component.name, (), "int64"
    dataset = load_component(component, seed, data_root)
    return dataset.name, dataset.input_shape, str(dataset.train.inputs.dtype)


def load_component(component: Component, seed: int, data_root: Path) -> Dataset:
    """The data set that a component names, as it is.

    Raises:
        DataError: It is missing or damaged.
    """
    function, options = component.bind(DATASETS)
    try:
        if component.target is not None:
            return datasets.validate(function(data_root, seed, **options))
        return datasets.load(component.name, options, data_root, seed)
    except WarmstartError:
        raise
    except Exception as error:
        if not component.is_user_defined:
            raise
        raise DataError(f"data set '{component.name}': {error_summary(error)}") from error


def split_rounds(cell: Cell, labels: IntArray, test_count: int) -> CellSplits:
    """Holds out validation data, splits the rest into rounds as the stream says, and adds label noise.

    Args:
        cell: Its settings and seed decide.
        labels: All training labels, (n,) or (n, length).
        test_count: The number of test samples.

    Raises:
        WarmstartError: The settings leave nothing to train on, or the stream does not fit the data.
    """
    settings, seed = cell.data_settings, cell.seed
    if labels.ndim > 1:
        _check_next_tokens(cell)
    pool, validation = split_validation(labels, settings.validation_fraction, seed)
    pool = random_subset(pool, settings.train_samples, seed, "train_samples")
    if len(pool) == 0:
        key = f"{'stream.source' if cell.target else 'data'}.validation_fraction"
        raise WarmstartError(f"{key}: {settings.validation_fraction} of {len(labels)} samples leaves none to train on")
    test = random_subset(np.arange(test_count, dtype=np.int64), settings.test_samples, seed, "test_samples")
    stream, options = cell.stream.bind(STREAMS)
    try:
        rounds = changed_rounds(stream(labels, pool, seed, **options)[: cell.rounds], labels, cell.changes, seed)
        _check_rounds(rounds, pool)
        if not cell.is_first_phase:
            check_drift(rounds, cell.changes)
    except WarmstartError as error:
        if cell.target is None:
            raise
        raise WarmstartError(str(error).replace("stream.", "stream.source.", 1)) from error
    if cell.pretraining:  # round 0 is the first phase
        rounds = [replace(each, index=each.index + 1) for each in rounds]
    return CellSplits(rounds, pool, validation, test, label_noise(labels, pool, settings.label_noise or 0, seed))


def _check_next_tokens(cell: Cell) -> None:
    """Refuses what needs one label for each sample, where labels are the next tokens of a text."""
    if cell.data_settings.label_noise:
        raise WarmstartError(f"data.label_noise: {cell.data.name} has no classes, but next tokens; leave it out")
    if cell.stream.options.get("order") == "balanced":
        raise WarmstartError(
            f"stream.order: balanced deals out classes, and {cell.data.name} has next tokens; choose random or given"
        )
    if STREAMS.has_trait(cell.stream.name, "needs_classes") and cell.stream.options.get("query") != "random":
        raise WarmstartError(f"stream.name: {cell.stream.name} is for classes, and {cell.data.name} has next tokens")
    if changes := [each.name for each in cell.changes if CHANGES.has_trait(each.name, "needs_classes")]:
        raise WarmstartError(f"stream.changes.{changes[0]}: is for classes, and {cell.data.name} has next tokens")


def _check_rounds(rounds: Sequence[Round], pool: IntArray) -> None:
    """Checks what a stream returned, which may be a user's: every round has samples, and only such as may arrive."""
    if not rounds:
        raise WarmstartError("stream.name: this stream has no rounds")
    for each in rounds:
        if len(each.train) == 0:
            raise WarmstartError(f"stream.name: round {each.index} of this stream has no samples to train on")
        if not np.isin(each.train, pool).all():
            raise WarmstartError(
                f"stream.name: round {each.index} of this stream trains on samples that are not in the pool, such as "
                f"sample {np.setdiff1d(each.train, pool)[0]}, which may be held out"
            )


def prepared_data(cell: Cell, dataset: Dataset) -> tuple[Dataset, CellSplits]:
    """The data set with the labels and the inputs that a cell trains on and is tested on, and what each sample is for.

    Changed inputs of the last cells are kept in memory; without noise and changes it is the data set itself.
    """
    splits = split_rounds(cell, dataset.train.labels, len(dataset.test))
    if len(splits.noise.corrupted):
        dataset = replace(dataset, train=Samples(dataset.train.inputs, splits.noise.labels))
    rounds = with_test_classes(splits.rounds, dataset.test.labels, splits.test)
    if cell.changes:
        key = repr((cell.data, cell.target, cell.data_settings, cell.stream, cell.rounds, cell.changes, cell.seed))
        if key not in _changed:
            if len(_changed) == MAX_KEPT:
                del _changed[next(iter(_changed))]  # the oldest
            _changed[key] = changed_dataset(dataset, rounds, splits.validation, splits.test, cell.changes, cell.seed)
        dataset, rounds = _changed[key]
    return dataset, replace(splits, rounds=rounds)


def corrupted_labels(cells: Iterable[Cell], data_root: Path, may_lose_classes: bool = False) -> dict[str, IntArray]:
    """The labels that are noise, for each combination of a data set, its settings and a seed.

    Args:
        cells: Cells whose data can be loaded.
        data_root: The folder of the data sets.
        may_lose_classes: Whether the noise may leave a class without samples, as in a rehearsal with few of them.

    Returns:
        By `Cell.noise_id`, the index in the training set, the label and the true label of each such sample, int64
        (n, 3).

    Raises:
        WarmstartError: The noise leaves a class without samples.
    """
    found = {}
    for cell in {cell.noise_id: cell for cell in cells if cell.data_settings.label_noise}.values():
        labels = load_component(cell.data, cell.seed, data_root).train.labels
        noise = split_rounds(cell, labels, 0).noise
        if len(noise.lost) and not may_lose_classes:
            raise WarmstartError(
                f"{'stream.source' if cell.target else 'data'}.label_noise: {cell.data_settings.label_noise} with seed "
                f"{cell.seed} leaves class {noise.lost[0]} of {cell.data.name} without a training sample; use less "
                "noise or more samples"
            )
        columns = noise.corrupted, noise.labels[noise.corrupted], labels[noise.corrupted]
        found[cell.noise_id] = np.stack(columns, axis=1)
    return found


def data_notes(cells: Iterable[Cell], data_root: Path) -> list[str]:
    """Notes for the user about the data of these cells: the data sets' own notes, and missing classes.

    A class is missing if the data set has it but the first round, with its few samples, does not.

    Args:
        cells: Cells whose data can be loaded.
        data_root: The folder of the data sets.
    """
    found: dict[str, None] = {}
    alike = {
        repr((cell.data, cell.data_settings, cell.stream, cell.changes, cell.seed, cell.model)): cell for cell in cells
    }
    for cell in alike.values():
        dataset = load_component(cell.data, cell.seed, data_root)
        found.update(dict.fromkeys(dataset.notes))
        if (pretraining := cell.pretraining) and (path := pretraining.checkpoint):
            found.update(dict.fromkeys(_checkpoint_notes(cell, pretraining, path, dataset)))
        labels = dataset.train.labels
        splits = split_rounds(cell, labels, 0)
        first = splits.rounds[0].train
        by_class = splits.rounds[0].classes is not None
        if len(lost := np.setdiff1d(labels, splits.noise.labels[first])) and not by_class:
            some = ", ".join(map(str, lost[:MOST_LISTED])) + (" ..." if len(lost) > MOST_LISTED else "")
            found[
                f"{dataset.name}, seed {cell.seed}: the {len(first)} training samples of the first round lack "
                f"{len(lost)} of {dataset.classes} classes ({some})"
            ] = None
    return list(found)


def _checkpoint_notes(cell: Cell, pretraining: Pretraining, path: Path, dataset: Dataset) -> list[str]:
    """Fits the file of weights to the cell's model before training starts; returns what a user should know."""
    from warmstart_sim import models
    from warmstart_sim.models.weights import read_weights, transfer_weights

    function, options = cell.model.bind(MODELS)
    with scoped_torch_seed(cell.seed, "init", 0):
        model = models.build(function, options, dataset.input_shape, dataset.classes, dataset.vocabulary_size)
    layout = models.layout(model)
    weights, notes = read_weights(path, model, layout, pretraining.weights)
    transfer_weights(weights, model.state_dict(), layout, pretraining.head)
    return notes


def load_by_name(name: str, assignments: Iterable[str], data_root: Path) -> Dataset:
    """Loads a data set outside of a scenario.

    Args:
        name: As in a scenario file.
        assignments: Its options, each "KEY=VALUE".
        data_root: The folder of the data sets.

    Raises:
        WarmstartError: No such data set, or no such option.
        DataError: It is missing or damaged.
    """
    raw = {"name": "data", "data": {"name": name}, "strategies": {"random_init": {}}}
    _, (cell,) = plan(set_values(raw, (f"data.{each}" for each in assignments)), name)
    return load_dataset(cell, data_root)
