"""Converts our scenarios to Avalanche benchmarks, and Avalanche benchmarks to our scenarios."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks import CLScenario, benchmark_from_datasets, with_classes_timeline
from avalanche.benchmarks.utils import AvalancheDataset, as_classification_dataset
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from warmstart_sim.datasets.paths import data_root as find_data_root
from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import STREAMS
from warmstart_sim.scenario import plan
from warmstart_sim.scenario.overrides import prepare_scenario
from warmstart_sim.scenario.splits import load_component, prepared_data
from warmstart_sim.training.batches import DeviceSamples, normalization
from warmstart_sim.types import Dataset, IntArray, Round, Samples

BLOCK = 10_000  # samples normalised at a time, which bounds the memory


def to_benchmark(
    scenario: str | Path | Mapping[str, Any],
    data: Any = None,
    seed: int = 0,
    *,
    accumulate: bool = True,
    set: Iterable[str] = (),
    data_root: str | Path | None = None,
) -> CLScenario:
    """Converts a scenario's rounds to the experiences of an Avalanche benchmark, with our engine's split and order.

    The benchmark has the streams "train" (one experience per round), "valid" and "test" (one experience each, if there
    are such samples; one per round where rounds have test data of their own). Inputs are float32 tensors, normalised as
    in the scenario, or int64 tokens. There are no task labels. All experiences share one copy of the samples.

    Args:
        scenario: A file, the name of a bundled scenario, or a mapping with the same keys.
        data: Replaces the scenario's data: a name, a mapping, or a `Dataset` of your own arrays.
        seed: Determines split and order. Default 0.
        accumulate: Whether an experience contains all samples up to its round (default, as in our engine), or only the
            new ones, as Avalanche's Cumulative and Replay expect.
        set: Settings to change, each "KEY=VALUE".
        data_root: The folder of the data sets.

    Raises:
        WarmstartError: The scenario or the data are invalid, a round has no new samples, the scenario varies settings
            that change its rounds, or it pre-trains on another data set with other classes.

    >>> benchmark = to_benchmark("digits_online")
    >>> [len(experience.dataset) for experience in benchmark.train_stream][:3]
    [100, 200, 300]
    >>> [len(experience.dataset) for experience in to_benchmark("digits_online", accumulate=False).train_stream][:3]
    [100, 100, 100]
    """
    raw, where = prepare_scenario(scenario, data=data, seeds=[seed], set=set)
    _, cells = plan(raw, where)
    cell = cells[0]
    if cell.pretraining:
        raise WarmstartError(
            f"{where}: starts from another data set or from weights, which one benchmark cannot represent; make one "
            "benchmark for each data set, with a stream such as static"
        )
    if STREAMS.has_trait(cell.stream.name, "model_chooses"):
        raise WarmstartError(f"{where}: the model chooses what arrives, so that rounds are not known before training")
    if len({repr((each.data, each.data_settings, each.stream, each.rounds, each.changes)) for each in cells}) > 1:
        raise WarmstartError(f"{where}: varies settings that change its rounds; choose a value with set=['KEY=VALUE']")
    dataset = load_component(cell.data, seed, find_data_root(Path(data_root) if data_root else None))
    normalize = normalization(cell.data_settings.normalize, dataset.train.inputs)
    dataset, splits = prepared_data(cell, dataset)
    cpu = torch.device("cpu")
    train, test = (as_avalanche(DeviceSamples(each, normalize, cpu)) for each in (dataset.train, dataset.test))
    subsets = [each.train if accumulate else each.new for each in splits.rounds]
    if empty := [each.index for each, subset in zip(splits.rounds, subsets, strict=True) if len(subset) == 0]:
        raise WarmstartError(f"{where}: round {empty[0]} has no new samples; leave accumulate=True")
    streams = {"train": [train.subset(subset) for subset in subsets]}
    validation = [each.validation for each in splits.rounds if each.validation is not None] or [splits.validation]
    tests = [each.like_new for each in splits.rounds if each.like_new is not None] or [splits.test]
    if len(splits.validation):
        streams["valid"] = [train.subset(indices) for indices in validation]
    if len(splits.test):
        streams["test"] = [test.subset(indices) for indices in tests]
    return with_classes_timeline(benchmark_from_datasets(**streams))


def as_avalanche(samples: DeviceSamples) -> AvalancheDataset:
    """Normalises the samples and returns them as an Avalanche data set on the CPU, with labels as `targets`."""
    everything = torch.arange(len(samples), device=samples.labels.device)
    batches = [samples.batch(index) for index in everything.split(BLOCK)] or [samples.batch(everything)]
    inputs, labels = (torch.cat(each).cpu().contiguous() for each in zip(*batches, strict=True))
    tensors = TensorDataset(inputs, labels)
    tensors.targets = labels.tolist()  # type: ignore[attr-defined]  # Avalanche requires them
    return as_classification_dataset(tensors)


def from_benchmark(
    benchmark: Any,
    *,
    accumulate: bool = True,
    name: str = "benchmark",
    **settings: Any,
) -> dict[str, Any]:
    """Converts an Avalanche benchmark's train stream to a scenario for `warmstart_sim.run`.

    Round t trains on experiences 0 to t, or only on experience t. The model has outputs for all classes from the first
    round on. Samples are read once, with the data sets' "eval" transforms: floats stay unchanged, images become uint8
    pixels, which the engine normalises. Nothing is held out for validation. The test stream is the test set.

    Args:
        benchmark: An Avalanche benchmark with a `train_stream` and optionally a `test_stream`.
        accumulate: Whether rounds accumulate the experiences. Default True.
        name: The scenario's name. Default "benchmark".
        settings: More keys of a scenario, such as `model="resnet18"`, `training={...}`, `seeds=[0, 1]`. Default: three
            strategies (random init, warm start, shrink-perturb).

    Returns:
        A mapping for `run`.

    Raises:
        WarmstartError: The benchmark has several task labels (the engine trains one head without them), or samples that
            are not arrays of the same shape with an integer label.

    >>> scenario = from_benchmark(to_benchmark("digits_online", accumulate=False), model="mlp")
    >>> scenario["data"]["name"].input_shape
    (1, 8, 8)
    """
    parts = [_samples(experience) for experience in benchmark.train_stream]
    test = [_samples(experience) for experience in getattr(benchmark, "test_stream", ())]
    if not parts:
        raise WarmstartError("from_benchmark: the train stream has no experiences")
    tasks = sorted(set().union(*(_tasks(each) for each in benchmark.train_stream)))
    if len(tasks) > 1:
        raise WarmstartError(
            f"from_benchmark: the stream has task labels {', '.join(map(str, tasks))}, but the engine trains one head "
            "without them; make the benchmark without task labels (in Avalanche's classic ones, return_task_id=False)"
        )
    _check_same_kind([each.inputs for each in (*parts, *test)])
    train = _concatenate(parts)
    test_samples = _concatenate(test) if test else Samples(train.inputs[:0], train.labels[:0])
    classes = 1 + int(max(each.labels.max(initial=-1) for each in (train, test_samples)))
    ends = np.cumsum([len(each) for each in parts])
    rounds = np.split(np.arange(len(train), dtype=np.int64), ends[:-1])
    return {
        "name": name,
        "data": {
            "name": Dataset(name, train, test_samples, classes),
            "validation_fraction": 0,
            **({} if train.inputs.dtype == np.uint8 else {"normalize": "none"}),
        },
        "stream": {"name": Experiences(tuple(rounds), accumulate)},
        "strategies": {"random_init": {}, "warm_start": {}, "shrink_perturb": {}},
        **settings,
    }


@dataclass(frozen=True)
class Experiences:
    """A stream with one round per experience of a benchmark.

    Attributes:
        indices: Indices of the training samples of each experience.
        accumulate: Whether a round trains on the samples of all experiences so far.
    """

    indices: tuple[IntArray, ...] = field(repr=False)
    accumulate: bool
    digest: str = field(init=False)  # of `indices`; part of the repr, which identifies the experiment

    def __post_init__(self) -> None:
        digest = hashlib.blake2b(digest_size=8)
        for indices in self.indices:
            digest.update(f"{len(indices)} ".encode() + indices.tobytes())
        object.__setattr__(self, "digest", digest.hexdigest())

    def __call__(self, labels: IntArray, pool: IntArray, seed: int) -> list[Round]:
        """Returns the rounds, restricted to the samples in the pool."""
        rounds = []
        so_far = pool[:0]
        for index, indices in enumerate(self.indices):
            new = indices[np.isin(indices, pool)]
            so_far = np.concatenate((so_far, new)) if self.accumulate else new
            if len(so_far) == 0:
                raise WarmstartError(f"data.train_samples leaves none of experience {index}'s samples to train on")
            rounds.append(Round(index, so_far, new))
        return rounds


def _samples(experience: Any) -> Samples:
    """Reads an experience's samples into arrays, with its "eval" transforms."""
    dataset = experience.dataset.eval()
    inputs, labels = [], []
    for position in range(len(dataset)):
        value, label, *_ = dataset[position]
        inputs.append(_array(value))
        labels.append(int(label))
    _check_same_kind([array[None] for array in inputs])
    return Samples(np.stack(inputs), np.array(labels, dtype=np.int64))


def _check_same_kind(arrays: Sequence[NDArray[Any]]) -> None:
    """Checks that all arrays have the same type and the same shape but for the first dimension."""
    kinds = [f"{array.shape[1:]} of {array.dtype}" for array in arrays]
    if other := next((kind for kind in kinds if kind != kinds[0]), None):
        raise WarmstartError(
            f"from_benchmark: inputs are of several kinds, such as {kinds[0]} and {other}; give all data sets the same "
            "eval transform, for example one that resizes them"
        )


def _array(value: Any) -> NDArray[Any]:
    """Converts an input to the engine's types: float32 values, int64 tokens, or uint8 (channels, height, width)."""
    array = np.asarray(value)
    if isinstance(value, torch.Tensor):
        return array.astype(np.int64 if array.dtype.kind in "iu" and array.dtype != np.uint8 else array.dtype)
    if array.dtype != np.uint8:
        raise WarmstartError(
            f"from_benchmark: an input is a {type(value).__name__} of {array.dtype}; the engine needs tensors or 8-bit "
            "images: give the benchmark an eval transform such as ToTensor()"
        )
    return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)


def _tasks(experience: Any) -> set[int]:
    return {int(label) for label in getattr(experience, "task_labels", ())}


def _concatenate(parts: Sequence[Samples]) -> Samples:
    return Samples(np.concatenate([each.inputs for each in parts]), np.concatenate([each.labels for each in parts]))
