"""Conversion of our scenarios to Avalanche benchmarks, and back."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets, class_incremental_benchmark, task_incremental_benchmark
from avalanche.benchmarks.utils import TransformGroups, as_classification_dataset
from avalanche.models import IncrementalClassifier
from avalanche.training.supervised import Cumulative, Replay
from PIL import Image
from small import Watch, dataset, strategy, train
from torch import nn

import warmstart_sim
from warmstart_sim import report
from warmstart_sim.avalanche import ConvergencePlugin, StrategyPlugin, from_benchmark, to_benchmark
from warmstart_sim.datasets.digits import digits
from warmstart_sim.errors import RunError, WarmstartError
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.columns import MEASURED
from warmstart_sim.scenario import plan
from warmstart_sim.scenario.overrides import prepare_scenario

pytestmark = pytest.mark.xdist_group("avalanche_benchmarks")  # its fixtures are made in one process

SETS: dict[str, Any] = {
    "floats": {"name": "noisy_digits", "test_draws": 1, "train_samples": 70, "test_samples": 50},
    "pixels": {"name": "synthetic", "like": "cifar10", "train_samples": 70, "test_samples": 20, "normalize": "half"},
    "texts": {"name": "synthetic_text", "train_samples": 70, "test_samples": 20},
}


def scenario(data: str = "floats", **changes: Any) -> dict[str, Any]:
    return {
        "name": "split",
        "data": {**SETS.get(data, {"name": data}), "validation_fraction": 0.2},
        "stream": {"name": "online", "chunk_size": 30},
        "model": {"name": "bilstm"} if data == "texts" else {"name": "mlp", "widths": [10]},
        "training": {"batch_size": 16, "until": {"train_accuracy": 0.8, "max_epochs": 20}},
        "strategies": {"warm_start": {}, "random_init": {}},
        "seeds": [4],
        **changes,
    }


def arrays(experience: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns an experience's inputs and labels, in order."""
    pairs = [experience.dataset.eval()[position] for position in range(len(experience.dataset))]
    return torch.stack([pair[0] for pair in pairs]), torch.tensor([int(pair[1]) for pair in pairs])


def assert_holds(experience: Any, samples: Any, indices: Any) -> None:
    """Checks that an experience has the engine's samples at these indices, and their classes."""
    inputs, labels = arrays(experience)
    expected = samples.batch(torch.as_tensor(indices))
    assert torch.equal(inputs, expected[0])
    assert torch.equal(labels, expected[1])
    assert inputs.dtype == expected[0].dtype
    assert set(experience.classes_in_this_experience) == set(labels.tolist())


@pytest.fixture(autouse=True)
def _without_reports(monkeypatch):
    """Reports take seconds and are tested elsewhere."""
    monkeypatch.setattr(report, "write", lambda folder: None)


# Our scenarios as their benchmarks.


@pytest.mark.parametrize("accumulate", [True, False])
@pytest.mark.parametrize("data", SETS)
def test_streams_contain_the_engines_samples_normalised(data, accumulate, tmp_path):
    trainer = CellTrainer(plan(scenario(data, seeds=[7]), "test")[1][0], ExecutionSettings(tmp_path))
    benchmark = to_benchmark(scenario(data), seed=7, accumulate=accumulate)
    assert set(benchmark.streams) == {"train", "valid", "test"}
    assert len(benchmark.train_stream) == len(trainer.rounds) >= 2
    for experience, round_ in zip(benchmark.train_stream, trainer.rounds, strict=True):
        assert_holds(experience, trainer.train_samples, round_.train if accumulate else round_.new)
    for stream, samples, indices in (
        ("valid", *trainer.samples_of("validation", trainer.rounds[0])),
        ("test", *trainer.samples_of("test", trainer.rounds[0])),
    ):
        (experience,) = benchmark.streams[stream]
        assert_holds(experience, samples, indices)


def test_inputs_are_normalised_with_the_training_sets_statistics():
    everything = digits(Path(), 0).train.inputs.astype(np.float64)
    (experience,) = to_benchmark(scenario(data="digits", stream="static")).train_stream
    inputs, _ = arrays(experience)
    spread = everything.std(axis=(0, 2, 3), keepdims=True)
    expected = (everything - everything.mean(axis=(0, 2, 3), keepdims=True)) / spread
    found = {tuple(np.round(each.ravel(), 3)) for each in inputs.double().numpy()}
    assert found <= {tuple(np.round(each.ravel(), 3)) for each in expected}
    assert len(found) > 900, "all but those that are held out, of which some are alike"


def test_without_validation_or_test_samples_there_are_no_such_streams():
    benchmark = to_benchmark(scenario(), set=["data.validation_fraction=0", "data.test_samples=null"], seed=1)
    assert set(benchmark.streams) == {"train", "test"}
    own = digits(Path(), 0)
    untested = warmstart_sim.Dataset(
        "untested", own.train, warmstart_sim.Samples(own.test.inputs[:0], own.test.labels[:0]), 10
    )
    assert set(to_benchmark(scenario(), data=untested).streams) == {"train"}


def test_the_seed_decides_the_order():
    one, again, other = (arrays(to_benchmark(scenario(), seed=seed).train_stream[0])[0] for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("changes", "options", "line"),
    [
        ({"vary": {"stream.chunk_size": [20, 30]}}, {}, "varies settings that change its rounds; choose a value"),
        ({"stream": {"name": "pretrain", "source": "digits"}}, {}, "starts from another data set or from weights"),
        ({"stream": "statik"}, {}, "unknown stream 'statik'; did you mean 'static'"),
        ({"data": "digts"}, {}, "unknown data set 'digts'; did you mean 'digits'"),
    ],
)  # fmt: skip
def test_a_scenario_without_a_benchmark_is_refused(changes, options, line):
    with pytest.raises(WarmstartError, match=line):
        to_benchmark(scenario(**changes), **options)


def test_a_round_without_new_samples_is_refused_without_accumulation():
    raw = scenario(stream={"name": "static", "rounds": 2})
    assert [len(each.dataset) for each in to_benchmark(raw).train_stream] == [70, 70]
    with pytest.raises(WarmstartError, match="round 1 has no new samples; leave accumulate=True"):
        to_benchmark(raw, accumulate=False)


@pytest.mark.parametrize("kind", [Cumulative, Replay])
def test_avalanches_strategies_train_on_our_benchmarks(kind):
    benchmark = to_benchmark(scenario(), accumulate=False)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    watch, options = Watch(), {"mem_size": 15} if kind is Replay else {}
    taught = strategy(model, StrategyPlugin("shrink_perturb"), ConvergencePlugin(0.7, 50), watch, kind=kind, **options)
    train(taught, benchmark.train_stream)
    sizes = [sum(len(labels) for _, labels in epochs[0]) for epochs in watch.batches]
    if kind is Cumulative:
        assert sizes == [30, 60, 70]
    else:
        assert sizes[0] == 30
        assert sizes[1] > 30
        assert sizes[2] > 10


# Their benchmarks as our scenarios.


@pytest.mark.parametrize("changes", [None, {"permuted_labels": {}}])
def test_rounds_with_test_data_of_their_own_have_a_test_experience_each(changes):
    stream = {"name": "class_incremental", "classes_per_round": 4, "changes": changes}
    benchmark = to_benchmark(scenario(data="digits", stream=stream), seed=3)
    trained, tested = ([set(each.dataset.targets) for each in part] for part in (
        to_benchmark(scenario(data="digits", stream=stream), seed=3, accumulate=False).train_stream,
        benchmark.test_stream,
    ))  # fmt: skip
    assert tested == trained
    assert [len(classes) for classes in tested] == [4, 4, 2]


def timeless(table: pd.DataFrame, *left_out: str) -> pd.DataFrame:
    return table.drop(columns=[*MEASURED, *left_out], errors="ignore").reset_index(drop=True)


@pytest.mark.parametrize("accumulated", [True, False])
def test_converting_there_and_back_gives_the_scenarios_own_tables(accumulated, tmp_path):
    raw = scenario()
    raw["data"]["validation_fraction"] = 0
    if not accumulated:

        def alone(labels, pool, seed):
            return [warmstart_sim.types.Round(i, part, part) for i, part in enumerate(np.split(pool, [40]))]

        raw["stream"] = {"name": alone}
    ours = warmstart_sim.run(raw, out=tmp_path / "ours", quiet=True)
    back = from_benchmark(
        to_benchmark(raw, seed=4, accumulate=False), accumulate=accumulated, name="split",
        **{key: raw[key] for key in ("model", "training", "strategies", "seeds")},
    )  # fmt: skip
    theirs = warmstart_sim.run(back, out=tmp_path / "theirs", quiet=True)
    pd.testing.assert_frame_equal(timeless(ours.rounds, "dataset"), timeless(theirs.rounds, "dataset"))
    pd.testing.assert_frame_equal(timeless(ours.epochs), timeless(theirs.epochs))
    assert ours.rounds["epochs"].max() > 1


def splits(raw: dict[str, Any], **changes: Any) -> Any:
    """The trainer of a scenario's first cell."""
    return CellTrainer(
        plan(*prepare_scenario({"model": "logistic_regression", **raw, **changes}))[1][0], ExecutionSettings(Path())
    )


@pytest.fixture(scope="module")
def tens() -> tuple[np.ndarray, np.ndarray]:
    """Some of the digits, each class."""
    everything = digits(Path(), 0).train
    return everything.inputs[:120].astype(np.float32), everything.labels[:120]


@pytest.mark.parametrize("accumulate", [True, False])
def test_class_incremental_benchmarks_train(tens, accumulate):
    train, test = (dataset(*(each[part] for each in tens)) for part in (slice(90), slice(90, 120)))
    benchmark = class_incremental_benchmark({"train": train, "test": test}, class_order=[*range(10)], num_experiences=5)
    trainer = splits(from_benchmark(benchmark, accumulate=accumulate))
    assert (trainer.dataset.classes, len(trainer.rounds)) == (10, 5)
    for number, round_ in enumerate(trainer.rounds):
        first = 0 if accumulate else 2 * number
        inputs, labels = trainer.train_samples.batch(torch.from_numpy(round_.train))
        assert set(labels.tolist()) == set(range(first, 2 * number + 2))
        expected = np.concatenate([tens[0][:90][tens[1][:90] // 2 == each] for each in range(first // 2, number + 1)])
        assert sorted(map(bytes, inputs.numpy())) == sorted(map(bytes, expected)), "as they are"
        assert set(trainer.train_samples.batch(torch.from_numpy(round_.new))[1].tolist()) == {
            2 * number,
            2 * number + 1,
        }
    assert len(trainer.samples_of("test", trainer.rounds[0])[1]) == 30


class Pictures:
    """PIL images, as torchvision's data sets return them."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.targets = [position % 3 for position in range(len(pixels))]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, position: int) -> tuple[Any, int]:
        return Image.fromarray(self.pixels[position]), self.targets[position]


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 3)])
def test_images_become_pixels_which_the_engine_normalises(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (20, *shape), dtype=np.uint8)
    parts = [as_classification_dataset(Pictures(part)) for part in np.split(pixels, [12])]
    raw = from_benchmark(benchmark_from_datasets(train=parts, test=[parts[0]]))
    trainer = splits(raw)
    channels = pixels[:, None] if len(shape) == 2 else pixels.transpose(0, 3, 1, 2)
    assert np.array_equal(trainer.dataset.train.inputs, channels)
    assert trainer.dataset.train.inputs.dtype == np.uint8
    axes = (0, 2, 3)
    expected = (channels / 255 - channels.mean(axes, keepdims=True) / 255) / (channels.std(axes, keepdims=True) / 255)
    assert np.allclose(trainer.train_samples.batch(torch.arange(20))[0].numpy(), expected, atol=1e-5)


def test_features_that_each_experience_permutes_are_read_with_its_own_eval_transform(tens):
    orders = [torch.randperm(64, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]

    def permuted(order: torch.Tensor) -> Any:
        def transform(inputs: torch.Tensor) -> torch.Tensor:
            return inputs.flatten()[order]

        return TransformGroups({"train": (lambda inputs: transform(inputs) + 1, None), "eval": (transform, None)})

    benchmark = benchmark_from_datasets(train=[dataset(*tens, permuted(order)) for order in orders])
    trainer = splits(from_benchmark(benchmark))
    flat = tens[0].reshape(120, 64)
    assert np.array_equal(trainer.dataset.train.inputs, np.concatenate([flat[:, order] for order in orders]))
    assert len(trainer.samples_of("test", trainer.rounds[0])[1]) == 0


def test_tokens_stay_tokens():
    raw = from_benchmark(to_benchmark(scenario("texts"), accumulate=False))
    trainer = splits(raw, model="bilstm")
    assert trainer.dataset.train.inputs.dtype == np.int64
    assert trainer.dataset.vocabulary_size == 1 + trainer.dataset.train.inputs.max()


@pytest.mark.parametrize(
    ("benchmark", "line"),
    [
        (
            lambda: task_incremental_benchmark(
                class_incremental_benchmark({"train": dataset(torch.eye(4), range(4))}, num_experiences=2, seed=0)
            ),
            "has task labels 0, 1, but the engine trains one head without them; make the benchmark without",
        ),
        (
            lambda: benchmark_from_datasets(train=[dataset(torch.eye(3), range(3)), dataset(torch.eye(4), range(4))]),
            r"inputs are of several kinds, such as \(3,\) of float32 and \(4,\) of float32; give all",
        ),
        (
            lambda: benchmark_from_datasets(train=[dataset([[1] * 3], [0])], test=[dataset([[1] * 4], [0])]),
            r"inputs are of several kinds, such as \(3,\) of float32 and \(4,\) of float32; give all",
        ),
        (lambda: SimpleNamespace(train_stream=[]), "the train stream has no experience"),
    ],
)  # fmt: skip
def test_a_benchmark_that_the_engine_cannot_train_is_refused(benchmark, line):
    with pytest.raises(WarmstartError, match=f"from_benchmark: .*{line}"):
        from_benchmark(benchmark())


def test_images_of_several_shapes_and_other_objects_are_refused():
    ragged = Pictures(np.zeros((4, 8, 6), dtype=np.uint8))
    ragged.pixels = [np.zeros((8, 6 + position % 2), dtype=np.uint8) for position in range(4)]
    with pytest.raises(WarmstartError, match=r"such as \(1, 8, 6\) of uint8 and \(1, 8, 7\) of uint8; give all"):
        from_benchmark(benchmark_from_datasets(train=[as_classification_dataset(ragged)]))
    ragged.pixels = np.zeros((4, 8, 6), dtype=np.int32)
    with pytest.raises(
        WarmstartError, match=r"an input is a Image of int32.*give the benchmark an eval transform such as"
    ):
        from_benchmark(benchmark_from_datasets(train=[as_classification_dataset(ragged)]))


def test_a_run_on_a_benchmark_resumes_and_another_benchmark_is_refused_in_its_folder(tens, tmp_path):
    def benchmark(border: int) -> dict[str, Any]:
        parts = [dataset(tens[0][part], tens[1][part]) for part in (slice(border), slice(border, None))]
        return from_benchmark(benchmark_from_datasets(train=parts), model="logistic_regression", seeds=[0],
                              training={"until": {"epochs": 1}})  # fmt: skip

    first = warmstart_sim.run(benchmark(60), out=tmp_path, quiet=True)
    again = warmstart_sim.run(benchmark(60), out=tmp_path, quiet=True)
    pd.testing.assert_frame_equal(first.rounds, again.rounds)  # even its seconds: nothing was trained
    assert first.rounds["train_samples"].tolist() == [60, 120] * 3
    alone = {"name": dataclasses.replace(benchmark(60)["stream"]["name"], accumulate=False)}
    for other in (benchmark(61), {**benchmark(60), "stream": alone}):
        with pytest.raises(WarmstartError, match="holds a run with other settings"):
            warmstart_sim.run(other, out=tmp_path, quiet=True)
    changed = benchmark(60)
    changed["data"]["name"] = copy.deepcopy(changed["data"]["name"])
    changed["data"]["name"].train.inputs[0] += 1
    with pytest.raises(WarmstartError, match="holds a run with other settings"):
        warmstart_sim.run(changed, out=tmp_path, quiet=True)


def test_a_head_that_grows_is_refused_by_our_engine(tens, tmp_path):
    class Growing(nn.Module):
        def __init__(self, input_shape, classes):
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
            self.head = IncrementalClassifier(5, classes)

        def forward(self, inputs):
            return self.head(self.body(inputs))

    raw = from_benchmark(benchmark_from_datasets(train=[dataset(*tens)]), model=Growing, seeds=[0])
    with pytest.raises(
        (WarmstartError, RunError), match="its module 'head' grows with the classes, but our engine trains one"
    ):
        warmstart_sim.run(raw, out=tmp_path, quiet=True)
