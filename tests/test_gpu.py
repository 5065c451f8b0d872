"""What can only be seen on a CUDA device; `pytest -m gpu` on a machine that has one."""

from __future__ import annotations

import pytest
import torch

from warmstart_sim import api, config
from warmstart_sim.experiment import Lab, Place, run_cell
from warmstart_sim.results.store import SECONDS, RunFolder

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def first_losses(raw: dict, device: str, tmp_path, epochs: int) -> list[float]:
    raw["training"]["until"] = {"epochs": epochs}
    cell = config.plan(raw, "scenario")[1][0]
    lab = Lab(cell, Place(tmp_path, device))
    weights, hooks = lab.start(0, None)
    lab.model.load_state_dict(weights)
    training = lab.training(lab.rounds[0], hooks)
    return [training.run_epoch().running_train_loss for _ in range(epochs)]


def test_cuda_and_cpu_train_alike_from_the_same_draws(tiny_scenario, tmp_path):
    on_cpu, on_cuda = (first_losses(tiny_scenario, device, tmp_path, 5) for device in ("cpu", "cuda"))
    assert on_cuda == pytest.approx(on_cpu, rel=1e-4)


def test_bf16_stays_close_to_float32(tiny_scenario, tmp_path):
    full = first_losses(tiny_scenario, "cuda", tmp_path, 5)
    tiny_scenario["training"]["precision"] = "bf16"
    assert first_losses(tiny_scenario, "cuda", tmp_path, 5) == pytest.approx(full, rel=0.05)


def test_a_cell_resumed_on_cuda_equals_one_that_ran_through_when_deterministic(tiny_scenario, tmp_path):
    cell = config.plan(tiny_scenario, "scenario")[1][2]
    place = Place(tmp_path, "cuda", checkpoint_seconds=0, deterministic=True)
    run_cell(cell, RunFolder(tmp_path / "through"), place)

    def kill(progress):
        if progress.total_epochs == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cell(cell, RunFolder(tmp_path / "killed"), place, kill)
    run_cell(cell, RunFolder(tmp_path / "killed"), place)
    one, other = (RunFolder(tmp_path / name).cell(cell.id).result() for name in ("through", "killed"))
    for left, right in zip(one["rounds"], other["rounds"], strict=True):
        assert {**left, **dict.fromkeys(SECONDS)} == {**right, **dict.fromkeys(SECONDS)}


def test_the_whole_scenario_runs_on_cuda(tiny_scenario, tmp_path):
    tiny_scenario["strategies"]["augmented"] = {"start": "warm_start", "augment": ["random_crop", "rotation"]}
    outcome = api.execute(tiny_scenario, "scenario", api.Options(out=tmp_path, device="cuda", quiet=True))
    assert outcome.failures == {}
