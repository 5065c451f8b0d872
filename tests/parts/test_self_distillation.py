"""Self-distillation against a plain loop, under augmentation, interrupted, captured, beside others, and bad input."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from tests.acceleration.simulated_capture import SimulatedCapture
from tests.experiment.test_experiment import result, same, stored
from tests.experiment.test_starts import Tasks, interrupted
from warmstart_sim import scenario as scenarios
from warmstart_sim.acceleration.device_cache import DeviceCache
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution.interleaved import run_slots
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.run_cell import cell_coroutine
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.parts.augment import Augment
from warmstart_sim.parts.self_distillation import SelfDistillation, kl_divergence
from warmstart_sim.results.store import RunFolder
from warmstart_sim.training.batches import epoch_order
from warmstart_sim.training.coroutine import run_to_end
from warmstart_sim.types import Batch


@pytest.fixture
def execution(tmp_path) -> ExecutionSettings:
    return ExecutionSettings(data_root=tmp_path)


@pytest.fixture
def stages(tiny_scenario) -> dict:
    """Three stages of two epochs, taught."""
    training = {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}, "batch_size": 32}
    return {
        **tiny_scenario, "stream": {"name": "stages", "stages": 3, "epochs": 6}, "training": training, "seeds": [0],
        "strategies": {"taught": {"start": "shrink_perturb", "self_distillation": {"beta": 0.7, "temperature": 2.0}}},
    }  # fmt: skip


def cells_of(raw):
    return scenarios.plan(raw, "scenario")[1]


def plain_loop(trainer, beta, tau):
    """Algorithm 1 with shrink-perturb, written out: cross-entropy, and the KL term as cross-entropy minus entropy."""
    model, count, teacher = copy.deepcopy(trainer.model), len(trainer.rounds[0].train), None
    model.load_state_dict(trainer.fresh_weights(0))
    for stage in range(3):
        if teacher is not None:
            fresh, parameters = trainer.fresh_weights(stage), dict(model.named_parameters())
            model.load_state_dict(
                {
                    name: 0.6 * tensor + 0.01 * fresh[name] if name in parameters else tensor
                    for name, tensor in model.state_dict().items()
                }
            )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for epoch in range(2):
            model.train()
            order = torch.from_numpy(trainer.rounds[stage].train)[epoch_order(count, 0, stage, epoch)]
            for index in order.split(32):
                inputs, labels = trainer.train_samples.batch(index)
                logits = model(inputs)
                loss = F.cross_entropy(logits, labels)
                if teacher is not None:
                    with torch.no_grad():
                        taught = (teacher(inputs) / tau).softmax(1)
                    cross = F.cross_entropy(logits / tau, taught)
                    loss = loss + beta * tau**2 * (cross + (taught * taught.log()).sum(1).mean())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        teacher = copy.deepcopy(model).eval()
    return model.state_dict()


@pytest.mark.parametrize(("beta", "tau"), [(0.7, 2.0), (0.0, 1.0)])
def test_training_equals_a_plain_loop(stages, tmp_path, execution, beta, tau):
    stages["strategies"]["taught"]["self_distillation"] = {"beta": beta, "temperature": tau}
    (cell,) = cells_of(stages)
    expected = plain_loop(CellTrainer(cell, execution), beta, tau)
    weights = result(cell, tmp_path / "run", execution)["weights"]
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-5)


def test_it_changes_the_weights_from_the_second_stage_on(stages, tmp_path, execution):
    taught = result(cells_of(stages)[0], tmp_path / "run", execution)
    alone = result(cells_of({**stages, "strategies": {"taught": "shrink_perturb"}})[0], tmp_path / "run", execution)
    assert taught["rounds"][0] == alone["rounds"][0]
    assert taught["rounds"][1]["train_loss"] != alone["rounds"][1]["train_loss"]


@pytest.mark.parametrize("teacher_inputs", ["as_student", "clean"])
def test_under_augmentation_the_teacher_sees_the_students_inputs_unless_clean_ones_are_asked_for(
    stages, execution, teacher_inputs
):
    trainer = CellTrainer(cells_of(stages)[0], execution)
    teacher, fresh = trainer.fresh_weights(7), trainer.fresh_weights(1)
    context = trainer.round_context(trainer.rounds[1], teacher)
    part = SelfDistillation(beta=3.0, temperature=0.5, teacher_inputs=teacher_inputs)
    hooks = [
        Augment(random_crop=2, horizontal_flip=0.5)(teacher, fresh, context), part(teacher, fresh, context)
    ]  # fmt: skip
    index = torch.from_numpy(trainer.rounds[1].train[:20])
    stepper = trainer.stepper
    stepper.begin(trainer.train_samples, hooks)
    stepper.seed_augmentation(0, 1, 0)
    stepper.train_mode()
    student = copy.deepcopy(trainer.model)
    stepper.step(index, None)

    batch = Batch(*trainer.train_samples.raw_batch(index), torch.Generator())
    stepper.seed_augmentation(0, 1, 0)
    augmented = trainer.train_samples.normalized(hooks[0].transform(replace(batch, generator=stepper.generator)).inputs)
    clean = trainer.train_samples.normalized(batch.inputs)
    assert not torch.equal(augmented, clean)
    learned = (student.train()(augmented) / 0.5).log_softmax(1)
    student.load_state_dict(teacher)
    taught = (student.eval()(clean if teacher_inputs == "clean" else augmented) / 0.5).log_softmax(1)
    divergence = F.kl_div(learned, taught, log_target=True, reduction="batchmean")
    loss = F.cross_entropy(learned * 0.5, batch.labels) + 3.0 * 0.25 * divergence
    assert stepper.loss_sum.item() / 20 == pytest.approx(loss.item(), rel=1e-4)


def test_interrupted_captured_and_beside_others_it_trains_the_same(stages, tmp_path, execution):
    stages["strategies"]["augmented"] = {**stages["strategies"]["taught"], "augment": ["horizontal_flip"]}
    cells = cells_of(stages)
    expected = [result(cell, tmp_path / "alone", execution) for cell in cells]
    assert interrupted(cells[0], tmp_path / "killed", execution, stop_after=3)
    assert same(expected[0], result(cells[0], tmp_path / "killed", execution))

    captured, folder = DeviceCache("cpu", lambda device: SimulatedCapture()), RunFolder(tmp_path / "captured")
    for cell, one in zip(cells, expected, strict=True):
        run_to_end(cell_coroutine(cell, folder, captured, execution, lambda progress: None))
        assert same(one, stored(folder, cell))

    for batching in ("separate", "stacked"):
        queue, folder = Tasks(cells), RunFolder(tmp_path / batching)
        run_slots(queue, folder, replace(execution, slots=2, batching=batching))
        assert queue.errors == []
        for cell, one in zip(cells, expected, strict=True):
            other = stored(folder, cell)
            assert batching == "stacked" or same(one, other)
            for name, tensor in one["weights"].items():
                torch.testing.assert_close(other["weights"][name], tensor, rtol=1e-3, atol=1e-3)


def test_kl_is_the_sum_over_classes_of_p_log_p_over_q():
    p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.2, 0.3, 0.5]])
    expected = (p * (p / q).log()).sum(1)
    torch.testing.assert_close(kl_divergence(p.log() + 3, q.log() - 1), expected)  # a constant changes no softmax
    assert kl_divergence(p.log(), p.log()).item() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1}, r"self_distillation\.beta: found -1 \(allowed: a number >= 0\)"),
        ({"temperature": 0}, r"self_distillation\.temperature: found 0 \(allowed: a number > 0\)"),
        ({"teacher_inputs": "clear"}, r"self_distillation\.teacher_inputs: found 'clear'"),
    ],
)
def test_bad_options_are_named(stages, options, message):
    stages["strategies"]["taught"]["self_distillation"] = options
    with pytest.raises(WarmstartError, match=message):
        cells_of(stages)


def test_a_teacher_of_other_classes_is_refused(stages, tmp_path, execution):
    """In `pretrain`, the head for the source's classes is replaced by a fresh one, which cannot teach."""
    source = {
        "name": "synthetic",
        "shape": [1, 8, 8],
        "classes": 4,
        "train_samples": 40,
        "training": {"until": {"epochs": 1}},
    }
    stages["stream"] = {"name": "pretrain", "source": source}
    stages["training"] = {"until": {"epochs": 1}}
    with pytest.raises(WarmstartError, match=r"^self_distillation: the teacher has other classes"):
        result(cells_of(stages)[0], tmp_path / "run", execution)
    source["classes"] = 10
    result(cells_of(stages)[0], tmp_path / "run", execution)
