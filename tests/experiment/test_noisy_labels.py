"""Runs with label noise against runs on data whose labels were replaced by hand: the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from warmstart_sim import scenario as scenarios
from warmstart_sim.acceleration.device_cache import DeviceCache
from warmstart_sim.avalanche import to_benchmark
from warmstart_sim.avalanche.engine import avalanche_engine
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution import launch
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.run_cell import run_cell
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.columns import MEASURED
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell

STREAMS = {
    "online": {"chunk_size": 40},
    "split": {"order": "balanced"},
    "stages": {"stages": 2},
    "pretrain": {"source": {"name": "digits", "train_samples": 90, "test_samples": 20, "label_noise": 0.5}},
}
RNG = np.random.default_rng(0)
ARRAYS = {
    "x_train": RNG.normal(size=(120, 1, 8, 8)).astype(np.float32),
    "y_train": np.arange(120) % 10,
    "x_test": RNG.normal(size=(30, 1, 8, 8)).astype(np.float32),
    "y_test": np.arange(30) % 10,
}


def scenario(folder: Path, stream: str = "online", noise: float | None = 0.4, **changes) -> dict:
    if not (folder / "clean.npz").exists():
        np.savez(folder / "clean.npz", **ARRAYS)
    data = {"name": "arrays", "path": str(folder / "clean.npz"), "validation_fraction": 0.25, "label_noise": noise}
    return {
        "name": "noisy",
        "data": data,
        "stream": {"name": stream, **STREAMS[stream]},
        "model": {"name": "mlp", "widths": [8]},
        "training": {"batch_size": 16, "until": {"epochs": 2}},
        "strategies": {"warm_start": {}},
        "seeds": [3],
        **changes,
    }


def cells(raw: dict) -> list[Cell]:
    return scenarios.plan(raw, "scenario")[1]


def run(raw: dict, folder: Path, **options) -> RunFolder:
    launch.run_scenario(raw, "scenario", launch.RunOptions(out=folder, quiet=True, device="cpu", **options))
    return RunFolder(folder)


def rows(folder: RunFolder, raw: dict) -> list[dict]:
    (cell,) = cells(raw)
    stored = folder.cell(cell.id).result()
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in stored["rounds"]]


def stored_noise(folder: Path, name: str = "arrays") -> pd.DataFrame:
    (path,) = (folder / "label_noise").glob(f"{name}-*.csv")
    return pd.read_csv(path)


def corrupted_by_hand(folder: Path, noise: pd.DataFrame, **changes) -> dict:
    """The scenario without noise, on a file in which the labels of the table are replaced."""
    labels = ARRAYS["y_train"].copy()
    assert np.array_equal(noise["true_label"], labels[noise["index"]])
    labels[noise["index"]] = noise["label"]
    np.savez(folder / "noisy.npz", **{**ARRAYS, "y_train": labels})
    raw = scenario(folder, noise=None, **changes)
    return {**raw, "data": {**raw["data"], "path": str(folder / "noisy.npz")}}


@pytest.mark.parametrize("stream", ["online", "stages", "pretrain"])
def test_noise_is_as_labels_replaced_by_hand(tmp_path, stream):
    raw = scenario(tmp_path, stream)
    noisy = run(raw, tmp_path / "noisy")
    noise = stored_noise(tmp_path / "noisy")
    assert len(noise) == round(0.4 * 90)  # a quarter is held out
    by_hand = corrupted_by_hand(tmp_path, noise, stream=stream)
    expected = run(by_hand, tmp_path / "by hand")
    assert rows(noisy, raw) == rows(expected, by_hand)
    weights = [folder.cell(cells(each)[0].id).weights() for folder, each in ((noisy, raw), (expected, by_hand))]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    if stream == "pretrain":
        assert len(stored_noise(tmp_path / "noisy", "digits")) == 45


def test_validation_and_test_labels_stay_clean_and_rounds_stay_the_same(tmp_path):
    execution = ExecutionSettings(tmp_path)
    clean, noisy = (CellTrainer(cells(scenario(tmp_path, "split", q))[0], execution) for q in (None, 0.9))
    for split in ("validation", "test"):
        (samples, index), (others, _) = (each.samples_of(split, each.rounds[0]) for each in (clean, noisy))
        assert torch.equal(samples.labels[index], others.labels[index])
    for one, other in zip(clean.rounds, noisy.rounds, strict=True):
        assert np.array_equal(one.train, other.train)
    train = clean.rounds[-1].train
    wrong = clean.train_samples.labels[train] != noisy.train_samples.labels[train]
    assert 0.7 < wrong.double().mean() < 0.9


def test_shares_of_noise_are_an_axis_and_none_is_the_cell_without_the_key(tmp_path):
    raw = scenario(tmp_path, vary={"data.label_noise": [0, 0.2, 0.4]})
    digests = [cell.digest for cell in cells(raw)]
    assert digests[0] == cells(scenario(tmp_path, noise=None))[0].digest
    assert len(set(digests)) == 3
    found = run(raw, tmp_path / "run", workers=1)
    assert len(list((tmp_path / "run" / "label_noise").iterdir())) == 2
    assert set(pd.read_csv(found.path / "rounds.csv")["data_label_noise"]) == {0, 0.2, 0.4}


def test_cells_with_other_noise_share_the_inputs_on_the_device_and_those_with_the_same_share_all(tmp_path):
    cache, execution = DeviceCache("cpu"), ExecutionSettings(tmp_path)
    raw = scenario(tmp_path, vary={"data.label_noise": [0, 0.4]}, strategies={"warm_start": {}, "random_init": {}})
    clean, _, noisy, same = (CellTrainer(cell, execution, cache).train_samples for cell in cells(raw))
    assert noisy is same is not clean
    assert noisy.inputs is clean.inputs
    assert not torch.equal(noisy.labels, clean.labels)


def test_cells_with_other_noise_are_stacked_and_come_to_what_they_come_to_alone(tmp_path):
    raw = scenario(tmp_path, vary={"data.label_noise": [0, 0.2, 0.4]})
    alone, stacked = (
        pd.read_csv(run(raw, tmp_path / how, slots=slots, batching=how, workers=1).path / "rounds.csv")
        for how, slots in (("separate", 1), ("stacked", 3))
    )
    columns = ["data_label_noise", "seed", "round", "train_loss", "validation_loss", "test_loss"]
    pd.testing.assert_frame_equal(alone[columns], stacked[columns], rtol=1e-4)


def test_avalanches_loop_and_benchmarks_have_the_noise_too(tmp_path):
    raw = scenario(tmp_path)
    (cell,) = cells(raw)
    for name, engine in (("ours", None), ("avalanche", avalanche_engine)):
        run_cell(cell, RunFolder(tmp_path / name), ExecutionSettings(tmp_path), engine=engine)
    ours, theirs = (RunFolder(tmp_path / name).cell(cell.id).weights() for name in ("ours", "avalanche"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    trainer = CellTrainer(cell, ExecutionSettings(tmp_path))
    benchmark = to_benchmark(raw, seed=3)
    expected = trainer.train_samples.labels[trainer.rounds[-1].train].tolist()
    assert list(benchmark.train_stream[-1].dataset.targets) == expected


@pytest.mark.parametrize("noise", [-0.1, 1, 1.5, "much"])
def test_a_share_outside_its_range_is_one_line(tmp_path, noise):
    with pytest.raises(WarmstartError, match=r"^scenario: data.label_noise: found '?[-\w.]+'? \("):
        cells(scenario(tmp_path, noise=noise))


def test_noise_that_leaves_a_class_without_samples_is_refused_but_not_in_a_rehearsal(tmp_path):
    raw = scenario(tmp_path, "stages", 0.9)
    raw["data"]["train_samples"] = 12
    with pytest.raises(
        WarmstartError, match=r"^data.label_noise: 0.9 with seed 3 leaves class \d of arrays without a t"
    ):
        run(raw, tmp_path / "refused")
    run({**raw, "rehearsal": True}, tmp_path / "rehearsal")
