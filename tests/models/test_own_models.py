"""Models as users bring them train as in a plain loop, and their starts leave alone what does not train."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.acceleration.simulated_capture import SimulatedCapture
from tests.experiment.test_experiment import result
from tests.models.own_models import CASES, Classifier, InDict, TwoOutputs, WithoutGradient, lazy
from warmstart_sim import models
from warmstart_sim import scenario as scenarios
from warmstart_sim.acceleration.device_cache import DeviceCache
from warmstart_sim.acceleration.stacked_layers import SampleMask, Unstackable, stacked_network
from warmstart_sim.avalanche.engine import avalanche_engine
from warmstart_sim.errors import WarmstartError
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.training.batches import epoch_order
from warmstart_sim.training.loop import train

BATCH, EPOCHS, RATE = 32, 2, 0.05
ENGINES = pytest.mark.parametrize("engine", [None, avalanche_engine], ids=["ours", "avalanche"])


@pytest.fixture
def execution(tmp_path) -> ExecutionSettings:
    return ExecutionSettings(data_root=tmp_path)


def cell_of(model: str, start: str = "warm_start", rounds: int = 1, **changes) -> scenarios.Cell:
    raw = {
        "name": "own",
        "data": {"name": "noisy_digits", "normalize": "none", "train_samples": 120, "test_samples": 50},
        "stream": {"name": "online", "chunk_size": 40, "rounds": rounds},
        "model": f"tests.models.own_models:{model}",
        "training": {
            "batch_size": BATCH, "optimizer": {"name": "sgd", "lr": RATE, "momentum": 0.9}, "until": {"epochs": EPOCHS}
        },
        "strategies": {start: {"lambda": 0.5, "sigma": 0.1} if start == "shrink_perturb" else {}},
        "seeds": [0],
        **changes,
    }  # fmt: skip
    return scenarios.plan(raw, "scenario")[1][0]


def plain_losses(kind: str, trainer: CellTrainer) -> list[float]:
    """Each epoch's mean loss in the loop that a user would write."""
    case = CASES[kind]
    model = case.twin((1, 8, 8), 10)
    model.load_state_dict(trainer.fresh_weights(0))
    model.train()
    if case.evaluating:
        model.get_submodule(case.evaluating).eval()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=RATE, momentum=0.9)
    indices = torch.from_numpy(trainer.rounds[0].train)
    losses = []
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in indices[epoch_order(len(indices), 0, 0, epoch)].split(BATCH):
            inputs = torch.from_numpy(trainer.dataset.train.inputs)[batch].to(case.dtype)
            labels = torch.from_numpy(trainer.dataset.train.labels)[batch]
            loss = F.cross_entropy(case.logits(model(inputs)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        losses.append(total / len(indices))
    return losses


@ENGINES
@pytest.mark.parametrize("kind", CASES)
def test_the_losses_are_those_of_a_plain_loop(tmp_path, execution, kind, engine):
    cell = cell_of(kind)
    rows = result(cell, tmp_path / "run", execution, engine=engine)["epochs"]
    expected = plain_losses(kind, CellTrainer(cell, execution))
    tolerance = 1e-2 if kind == "bfloat16" else 1e-5
    assert [row["running_train_loss"] for row in rows] == pytest.approx(expected, rel=tolerance)


UNTRAINED = {
    "FrozenResNet": ("backbone.",),
    "WithoutGradient": ("body.0", "body.1.weight", "body.1.bias"),
    "SharedBody": ("body.", "body_again.", "idle."),
}


@ENGINES
@pytest.mark.parametrize("start", ["shrink_perturb", "random_init"])
@pytest.mark.parametrize("kind", UNTRAINED)
def test_every_start_leaves_alone_what_does_not_train(tmp_path, execution, kind, start, engine):
    cell = cell_of(kind, start, rounds=2)
    weights = result(cell, tmp_path / "run", execution, engine=engine)["weights"]
    initial = CellTrainer(cell, execution).fresh_weights(0)
    for name, tensor in weights.items():
        if name.startswith(UNTRAINED[kind]):
            assert torch.equal(tensor, initial[name]), name
    assert not torch.equal(weights["head.weight"], initial["head.weight"])


def test_a_body_without_gradient_is_no_part_of_stacked_steps():
    with pytest.raises(Unstackable, match="turns gradients off"):
        stacked_network(WithoutGradient((1, 8, 8), 10), 2, SampleMask())


def test_hooks_of_a_users_modules_are_not_lost_in_stacked_steps():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.raises(Unstackable, match="hooks"):
        stacked_network(model, 2, SampleMask())


def test_a_stack_reads_the_logits_in_a_dict():
    model = InDict((1, 8, 8), 10)
    models.check_output(model, (1, 8, 8), 10)
    stacked, spatial = stacked_network(model, 2, SampleMask())
    assert spatial
    model.train()
    with torch.no_grad():
        for name, tensor in (*stacked.named_parameters(), *stacked.named_buffers()):
            tensor.copy_(model.state_dict()[name].expand_as(tensor))
        inputs = torch.rand(5, 1, 8, 8)
        logits = stacked(inputs.repeat(1, 2, 1, 1))
        torch.testing.assert_close(logits[0], model(inputs))
        torch.testing.assert_close(logits[0], logits[1])


def test_a_layer_for_another_output_is_no_part_of_stacked_steps():
    class Auxiliary(InDict):
        def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            output = super().forward(inputs)
            return {**output, "auxiliary": self.auxiliary(output["features"])}

    model = Auxiliary((1, 8, 8), 10)
    model.auxiliary = nn.Linear(12, 10)
    models.check_output(model, (1, 8, 8), 10)
    with pytest.raises(Unstackable, match="output is not used"):
        stacked_network(model, 2, SampleMask())


@pytest.mark.parametrize("kind", ["InDict", "InTuple", "float64", "WithoutGradient", "lazy"])
def test_captured_steps_are_those_of_single_kernels(execution, kind):
    cell = cell_of(kind)
    captured = CellTrainer(cell, execution, DeviceCache("cpu", lambda device: SimulatedCapture()))
    plain = CellTrainer(cell, execution)
    rows = [train(each.begin(each.rounds[0], None)[1]) for each in (captured, plain)]
    assert rows[0][-1]["running_train_loss"] == pytest.approx(rows[1][-1]["running_train_loss"], rel=1e-6)


def test_probes_and_flops_take_the_logits_and_the_dtype(execution):
    trainers = {kind: CellTrainer(cell_of(kind), execution) for kind in ("InDict", "float64", "Classifier")}
    assert {trainer.flops() for trainer in trainers.values()} == {trainers["Classifier"].flops()}
    for trainer in trainers.values():
        context = trainer.round_context(trainer.rounds[0], None)
        inputs, _ = context.samples(trainer.rounds[0].train[:4])
        assert context.forward(context.fresh, inputs).shape == (4, 10)
        assert context.gradients(context.fresh, trainer.rounds[0].train[:4])["head.weight"].shape == (10, 12)
        assert 0 <= context.evaluate(context.fresh, "test")[0] <= 1


def test_a_model_of_float32_tensors_gets_no_hooks():
    model = models.build(Classifier, {}, (1, 8, 8), 10)
    models.check_output(model, (1, 8, 8), 10)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_lazy_layers_are_drawn_once_and_alike_for_all_arms_of_a_seed(execution):
    one, other = (CellTrainer(cell_of("lazy", start), execution) for start in ("warm_start", "random_init"))
    for round_index in (0, 1):
        weights, same = (each.fresh_weights(round_index) for each in (one, other))
        assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert not torch.equal(one.fresh_weights(0)["4.weight"], one.fresh_weights(1)["4.weight"])
    built = models.build(lazy, {}, (1, 8, 8), 10)
    assert built.training
    assert built[1].num_batches_tracked == 0


def test_a_lazy_layer_that_nothing_uses_is_one_line():
    def build(input_shape: tuple[int, ...], classes: int) -> nn.Module:
        model = Classifier(input_shape, classes)
        model.idle = nn.LazyLinear(3)
        return model

    with pytest.raises(WarmstartError, match=r"^the model's lazy parameter 'idle.weight' has no shape, .*"):
        models.build(build, {}, (1, 8, 8), 10)


def test_outputs_with_two_readings_say_how_to_wrap_the_model():
    with pytest.raises(
        WarmstartError, match=r"it returned a tuple of \(2, 10\), \(2, 10\); wrap it .*return self.model"
    ):
        models.check_output(TwoOutputs((1, 8, 8), 10), (1, 8, 8), 10)


def test_a_model_in_which_nothing_trains_is_one_line():
    with pytest.raises(WarmstartError, match=r"no parameter that trains"):
        models.check_output(Classifier((1, 8, 8), 10).requires_grad_(False), (1, 8, 8), 10)


def test_a_checkpoint_of_lightning_starts_as_its_weights_do(tmp_path: Path, execution):
    trainer = CellTrainer(cell_of("Classifier"), execution)
    weights = trainer.fresh_weights(7)
    torch.save(weights, tmp_path / "plain.pt")
    torch.save({"state_dict": {f"model.{name}": each for name, each in weights.items()}}, tmp_path / "lightning.ckpt")
    losses = []
    for name in ("plain.pt", "lightning.ckpt"):
        stream = {"name": "pretrain", "checkpoint": str(tmp_path / name)}
        rows = result(cell_of("Classifier", stream=stream), tmp_path / f"run of {name}", execution)["epochs"]
        losses.append([row["running_train_loss"] for row in rows])
    assert losses[0] == losses[1]
