"""Which models get channels-last batches: convolutional ones, but for those whose backward pass is then unsafe."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from warmstart_sim import scenario as scenarios
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.settings import ExecutionSettings


def trainer(model: object, tmp_path) -> CellTrainer:
    data = {"name": "synthetic", "shape": [3, 8, 8], "train_samples": 20, "test_samples": 10}
    raw = {"name": "one", "data": data, "model": model, "strategies": {"random_init": {}}}
    return CellTrainer(scenarios.plan(raw, "scenario")[1][0], ExecutionSettings(data_root=tmp_path))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("small_cnn", True),
        ({"name": "small_cnn", "channels": [2]}, True),
        ({"name": "resnet18", "width": 8}, True),
        ({"name": "resnet18", "width": 4}, False),
        ({"name": "resnet18", "width": 7}, False),
        ("mlp", False),
    ],
    ids=str,
)
def test_batches_and_weights_are_channels_last_where_that_is_quicker_and_safe(tmp_path, model, expected):
    made = trainer(model, tmp_path)
    batch = made.train_samples.batch(torch.arange(4))[0]
    assert batch.is_contiguous(memory_format=torch.channels_last) == expected
    kernels = [
        each.weight for each in made.model.modules() if isinstance(each, nn.Conv2d) and each.kernel_size == (3, 3)
    ]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) == expected for kernel in kernels)


def test_a_narrow_resnet_trains(tmp_path):
    made = trainer({"name": "resnet18", "width": 4}, tmp_path)
    made.model.train()
    for _ in range(20):  # channels-last, this ends the process on a CPU with AVX2
        inputs, labels = made.train_samples.batch(torch.arange(20))
        nn.functional.cross_entropy(made.model(inputs), labels).backward()
