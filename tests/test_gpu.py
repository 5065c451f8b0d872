"""What can only be seen on a CUDA device; `pytest -m gpu` on a machine that has one."""

from __future__ import annotations

import contextlib
import copy
import subprocess
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch

from tests.experiment import own_parts
from warmstart_sim import models
from warmstart_sim import scenario as scenarios
from warmstart_sim.acceleration.graph_capture import graph_capture
from warmstart_sim.acceleration.stacking import Stack
from warmstart_sim.execution import launch
from warmstart_sim.execution.throughput import rates, step_times
from warmstart_sim.experiment.cell_trainer import CellTrainer, set_up_torch
from warmstart_sim.experiment.run_cell import run_cell
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.parts import augment
from warmstart_sim.results.columns import MEASURED
from warmstart_sim.results.store import RunFolder
from warmstart_sim.seeding import scoped_torch_seed
from warmstart_sim.training.batches import DeviceSamples, normalization
from warmstart_sim.training.coroutine import run_to_end
from warmstart_sim.training.evaluation import evaluate, evaluation_coroutine, train_accuracy, train_accuracy_coroutine
from warmstart_sim.training.loop import RoundData, RoundTraining
from warmstart_sim.training.settings import Training
from warmstart_sim.training.step_time import seconds_per_call, step_requests
from warmstart_sim.training.stepper import Stepper, StepRequest
from warmstart_sim.types import Batch, Hooks, Samples

with warnings.catch_warnings():  # of a driver that is too old, for example
    warnings.simplefilter("ignore")
    AVAILABLE = torch.cuda.is_available()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not AVAILABLE, reason="needs a CUDA device"),
    # Drivers and libraries warn of what is none of ours; steps that are not captured, unexpectedly, are.
    pytest.mark.filterwarnings("default", "error:the (training step|evaluation) cannot be captured:UserWarning"),
]


@contextlib.contextmanager
def some_steps_are_not_captured() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the training step cannot be captured")
        yield


def first_losses(raw: dict, device: str, tmp_path, epochs: int) -> list[float]:
    raw["training"]["until"] = {"epochs": epochs}
    cell = scenarios.plan(raw, "scenario")[1][0]
    trainer = CellTrainer(cell, ExecutionSettings(tmp_path, device))
    _, training = trainer.begin(trainer.rounds[0], None)
    return [training.run_epoch()["running_train_loss"] for _ in range(epochs)]


def test_cuda_and_cpu_train_alike_from_the_same_draws(tiny_scenario, tmp_path):
    on_cpu, on_cuda = (first_losses(tiny_scenario, device, tmp_path, 5) for device in ("cpu", "cuda"))
    assert on_cuda == pytest.approx(on_cpu, rel=1e-4)


def test_bf16_stays_close_to_float32(tiny_scenario, tmp_path):
    full = first_losses(tiny_scenario, "cuda", tmp_path, 5)
    tiny_scenario["training"]["precision"] = "bf16"
    assert first_losses(tiny_scenario, "cuda", tmp_path, 5) == pytest.approx(full, rel=0.05)


def test_a_cell_resumed_on_cuda_equals_one_that_ran_through_when_deterministic(tiny_scenario, tmp_path):
    cell = scenarios.plan(tiny_scenario, "scenario")[1][2]
    place = ExecutionSettings(tmp_path, "cuda", checkpoint_seconds=0, deterministic=True)
    run_cell(cell, RunFolder(tmp_path / "through"), place)

    def kill(progress):
        if progress.total_epochs == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cell(cell, RunFolder(tmp_path / "killed"), place, kill)
    run_cell(cell, RunFolder(tmp_path / "killed"), place)
    one, other = (RunFolder(tmp_path / name).cell(cell.id).result() for name in ("through", "killed"))
    for left, right in zip(one["rounds"], other["rounds"], strict=True):
        assert {**left, **dict.fromkeys(MEASURED)} == {**right, **dict.fromkeys(MEASURED)}


ARMS = {
    "random_init": {},
    "half_forgotten": {"start": "shrink_perturb", "lambda": 0.6, "sigma": 0.1, "buffers": "fresh"},
    "head_only": {"start": own_parts.head_only},
    "head_every_other_round": {"start": own_parts.head_every_other_round},
    "doubled": {"start": own_parts.doubled},
    "layerwise": {},
    "layerwise_frozen": {"start": "layerwise", "freeze": True},
    "augmented": {"start": "warm_start", "augment": ["random_crop", "horizontal_flip", "rotation"]},
    "penalised": {"start": "warm_start", "l2": {"strength": 0.01}, "confidence_penalty": {"strength": 0.1}},
    "attacked": {"start": "random_init", "adversarial": {"epsilon": 0.03}},
    "averaged": {"start": "warm_start", "running_average": {}},  # its state counts steps: it is not captured
    "taught": {"start": "random_init", "last_round_teaches": {}},  # a second model in the captured step
}
EVERY_PROBE = ["accuracy", "gradient_norm", "weight_norm", "distance_from_start", "dead_units", "effective_rank"]


def tables(raw: dict, folder, device: str, **options) -> tuple[pd.DataFrame, pd.DataFrame]:
    outcome = launch.run_scenario(raw, "scenario", launch.RunOptions(folder, device, quiet=True, **options))
    assert outcome.failures == {}
    return tuple(pd.read_csv(outcome.folder / name) for name in ("rounds.csv", "epochs.csv"))


@pytest.mark.parametrize("arm", sorted(ARMS.keys() - {"augmented"}))  # the devices' generators draw other numbers
def test_a_cell_trains_and_measures_on_cuda_what_it_does_on_the_cpu(arm, tiny_scenario, tmp_path, own_parts_registered):
    """Every kind of start and of part, with every probe."""
    tiny_scenario["model"] = {"name": "small_cnn", "channels": [4, 8], "batch_norm": True}
    tiny_scenario["training"] = {"batch_size": 32, "until": {"epochs": 2}, "optimizer": {"name": "sgd", "lr": 0.01}}
    tiny_scenario["strategies"] = {arm: ARMS[arm]}
    tiny_scenario["measure"] = {"each_epoch": EVERY_PROBE, "each_round": EVERY_PROBE}
    tiny_scenario["seeds"] = [0]
    (cell,) = scenarios.plan(tiny_scenario, "scenario")[1]
    results = []
    for device in ("cpu", "cuda"):
        with some_steps_are_not_captured():
            run_cell(cell, RunFolder(tmp_path / device), ExecutionSettings(tmp_path, device))
        results.append(RunFolder(tmp_path / device).cell(cell.id).result())
    for table in ("rounds", "epochs"):
        left, right = (pd.DataFrame(result[table]) for result in results)
        assert list(left) == list(right)
        for column in left.columns.difference(MEASURED):
            if left[column].dtype.kind == "f":
                counted = "accuracy" in column or "dead" in column  # one sample or unit more or less
                np.testing.assert_allclose(
                    right[column], left[column], rtol=1e-2, atol=0.035 if counted else 1e-4, err_msg=column
                )


@pytest.mark.parametrize("batching", ["streams", "stacked"])
def test_every_arm_and_probe_runs_beside_the_others_in_slots(batching, tiny_scenario, tmp_path, own_parts_registered):
    tiny_scenario["training"]["until"] = {"epochs": 3}
    tiny_scenario["strategies"] = ARMS
    tiny_scenario["measure"] = {"each_epoch": EVERY_PROBE, "each_round": EVERY_PROBE}
    with some_steps_are_not_captured():
        rounds, epochs = tables(tiny_scenario, tmp_path, "cuda", workers=1, slots=7, batching=batching)
    assert len(rounds) == 2 * len(ARMS) * 3
    assert len(epochs) == 3 * len(rounds)


@pytest.mark.parametrize("stream", [{"name": "split"}, {"name": "pretrain", "source": "digits", "fraction": 0.5}])
def test_streams_that_share_their_first_phase_run_on_cuda(stream, tiny_scenario, tmp_path):
    tiny_scenario["stream"] = stream
    rounds, _ = tables(tiny_scenario, tmp_path, "cuda", slots=3)
    assert set(rounds["strategy"]) == set(tiny_scenario["strategies"])


def test_what_fails_on_cuda_does_not_stop_the_others(tiny_scenario, tmp_path):
    tiny_scenario["strategies"] = {"random_init": {}, "bad": {"start": "tests.experiment.poison:crash"}}
    outcome = launch.run_scenario(tiny_scenario, "scenario", launch.RunOptions(tmp_path, "cuda", slots=4, quiet=True))
    assert len(outcome.failures) == 2
    rounds = pd.read_csv(outcome.folder / "rounds.csv")
    assert rounds["cell_complete"].sum() == 2 * 3
    assert set(rounds.loc[~rounds["cell_complete"], "strategy"]) == {"bad"}


def test_the_whole_scenario_runs_on_cuda(tiny_scenario, tmp_path):
    tiny_scenario["strategies"]["augmented"] = {"start": "warm_start", "augment": ["random_crop", "rotation"]}
    outcome = launch.run_scenario(tiny_scenario, "scenario", launch.RunOptions(out=tmp_path, device="cuda", quiet=True))
    assert outcome.failures == {}


CUDA = torch.device("cuda:0")
RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (300, 3, 16, 16), dtype=np.uint8), RNG.integers(0, 10, 300)
MODELS = {
    "mlp": {},
    "small_cnn": {},
    "resnet18": {"width": 16},
}


@pytest.fixture
def true_float32():
    """No TF32, and kernels that give the same bits every time."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = "ieee"
    yield
    torch.use_deterministic_algorithms(False)


def samples_on_cuda(channels_last: bool) -> DeviceSamples:
    return DeviceSamples(Samples(IMAGES, LABELS), normalization("train", IMAGES), CUDA, channels_last)


def training_of(name: str, record: bool, hooks: tuple[Hooks, ...] = (), seed: int = 0, **settings) -> RoundTraining:
    with scoped_torch_seed(seed, "init"):
        model = models.build(name, MODELS[name], (3, 16, 16), 10)
    channels_last = models.takes_channels_last(model)
    model = model.to(memory_format=torch.channels_last) if channels_last else model
    settings = Training(**{"batch_size": 64, "until": {"epochs": 40}, **settings})
    stepper = Stepper(model.to(CUDA), settings, graph_capture(CUDA) if record else None)
    samples, nothing = samples_on_cuda(channels_last), torch.arange(0, device=CUDA)
    data = RoundData(samples, torch.arange(300, device=CUDA), nothing, samples, nothing)
    return RoundTraining(stepper, data, hooks, seed=seed, round_index=0)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("name", MODELS)
def test_two_hundred_replayed_steps_equal_eager_ones(name, optimizer, true_float32):
    settings = {"optimizer": {"name": optimizer, "lr": 0.001}, "schedule": {"name": "step", "every": 10}}
    eager, graph = (training_of(name, record, **settings) for record in (False, True))
    for _ in range(40):  # epochs of 64, 64, 64, 64 and a partial batch of 44
        left, right = eager.run_epoch(), graph.run_epoch()
        # The captured rate is a float32 number, the eager one a Python float: the last bits may differ.
        assert right["running_train_loss"] == pytest.approx(left["running_train_loss"], rel=2e-3, abs=2e-5)
    assert graph.steps == eager.steps == 200
    for key, tensor in eager.model.state_dict().items():
        assert torch.allclose(tensor.float(), graph.model.state_dict()[key].float(), rtol=2e-2, atol=2e-3), key


@pytest.mark.parametrize("name", MODELS)
def test_replayed_epochs_survive_a_new_round_on_the_same_stepper(name, true_float32):
    graph, eager = training_of(name, True), training_of(name, False)
    start = copy.deepcopy(eager.model.state_dict())
    graph.run_epoch()
    graph.model.load_state_dict(start)
    again = RoundTraining(graph.stepper, graph._data, seed=0, round_index=0)
    captured = graph.stepper.capture_seconds
    losses = [[each.run_epoch()["running_train_loss"] for _ in range(5)] for each in (eager, again)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert again.stepper.capture_seconds == captured > 0  # nothing was captured anew


def test_replayed_evaluation_equals_the_plain_one():
    training = training_of("resnet18", True)
    training.run_epoch()
    stepper, samples = training.stepper, training.stepper.samples
    for count in (1, 77, 300):
        indices = torch.arange(count, device=CUDA)
        accuracy, loss = evaluate(stepper.model, samples, indices)
        metrics = stepper.batch_metrics(samples)
        replayed = run_to_end(evaluation_coroutine(metrics, samples, indices))
        assert replayed == pytest.approx((accuracy, loss), rel=1e-4)
        for threshold in (0.1, 0.5, 0.99):
            decision = run_to_end(train_accuracy_coroutine(metrics, samples, indices, threshold))
            plain = train_accuracy(stepper.model, samples, indices, threshold)
            assert (decision is None) == (plain is None)


def test_bf16_replayed_stays_close_to_float32():
    full, half = (training_of("resnet18", True, precision=precision) for precision in ("float32", "bf16"))
    losses = [[each.run_epoch()["running_train_loss"] for _ in range(10)] for each in (full, half)]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def test_augmentation_on_cuda_equals_the_cpus_for_the_same_draws():
    strengths = augment.Augment(random_crop=4, horizontal_flip=0.5, color_jitter=0.25, rotation=10.0)
    images = torch.from_numpy(IMAGES[:64]).float() / 255
    drawn = augment.draw(64, strengths, torch.Generator().manual_seed(0))
    on_cuda = augment.Drawn(**{name: tensor.to(CUDA) for name, tensor in vars(drawn).items()})
    for step in (augment.crop_and_flip, augment.crop_flip_and_rotate, augment.jitter_colours):
        assert torch.allclose(step(images.to(CUDA), on_cuda).cpu(), step(images, drawn), atol=2e-5), step.__name__


def test_replays_draw_new_augmentations_and_those_of_eager_steps():
    seen: dict[bool, list[torch.Tensor]] = {False: [], True: []}
    for record, drawn in seen.items():
        total = torch.zeros(64, device=CUDA)

        def transform(batch: Batch, total: torch.Tensor = total) -> Batch:
            total.copy_(torch.rand(64, generator=batch.generator, device=CUDA))
            return batch

        training = training_of("mlp", record, (Hooks(transform=transform),), batch_size=64)
        for minibatch in training.epoch():
            minibatch.run()
            if isinstance(minibatch, StepRequest) and len(minibatch.index) == 64:
                drawn.append(total.clone())
    for eager, replayed in zip(seen[False], seen[True], strict=True):
        assert torch.equal(eager, replayed)
    assert not torch.equal(seen[True][0], seen[True][1])


@pytest.mark.parametrize("name", MODELS)
def test_fifty_stacked_steps_equal_single_ones_in_float64(name):
    inputs = torch.randn(300, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    samples = DeviceSamples(Samples(inputs, LABELS), None, CUDA)

    def steppers() -> list[Stepper]:
        made = []
        for seed in range(3):
            with scoped_torch_seed(seed, "init"):
                model = models.build(name, MODELS[name], (3, 16, 16), 10).double().to(CUDA).train()
            made.append(Stepper(model, Training(), None))
            made[-1].begin(samples, ())
        return made

    single, stacked = steppers(), steppers()
    stack = Stack(stacked, graph_capture(CUDA))
    generator = torch.Generator().manual_seed(1)
    for step in range(50):
        sizes = (64, 64, 64) if step % 3 else (64, 17, 40)
        indices = [torch.randperm(300, generator=generator)[:size].to(CUDA) for size in sizes]
        for stepper, index in zip(single, indices, strict=True):
            stepper.step(index, None)
        stack.step([StepRequest(stepper, index, None) for stepper, index in zip(stacked, indices, strict=True)])
    for one, other in zip(single, stacked, strict=True):
        for key, tensor in one.model.state_dict().items():
            assert torch.allclose(tensor, other.model.state_dict()[key], rtol=1e-9, atol=1e-9), key


@pytest.mark.parametrize("batching", ["streams", "stacked"])
def test_slots_on_cuda_give_the_rounds_of_cells_alone(batching, tiny_scenario, tmp_path):
    tiny_scenario["seeds"] = [0, 1, 2]
    alone = launch.run_scenario(
        tiny_scenario, "scenario", launch.RunOptions(tmp_path / "a", "cuda", slots=1, quiet=True)
    )
    beside = launch.run_scenario(
        tiny_scenario, "scenario", launch.RunOptions(tmp_path / "b", "cuda", slots=4, batching=batching, quiet=True)
    )
    assert alone.failures == beside.failures == {}
    left, right = (pd.read_csv(each.folder / "rounds.csv") for each in (alone, beside))
    assert list(left["train_samples"]) == list(right["train_samples"])
    assert abs(left["test_accuracy"].mean() - right["test_accuracy"].mean()) < 0.1
    assert set(right["timing"]) == {"concurrent"}
    assert (right["estimated_isolated_seconds"] > 0).all()
    assert (left["peak_memory"] > 0).all()


def test_speed_is_measured_on_cuda(tiny_scenario, tmp_path):
    cell = scenarios.plan(tiny_scenario, "scenario")[1][0]
    place = ExecutionSettings(tmp_path, "cuda:0")
    found = list(rates(cell, place, most=4))
    assert {rate.batching for rate in found} == {"separate", "streams", "stacked"}
    assert all(time.step_seconds > 0 for time in step_times([cell], place).values())


def test_texts_train_on_cuda(tmp_path):
    raw = {
        "name": "texts", "data": {"name": "synthetic_text", "train_samples": 200, "test_samples": 50},
        "stream": {"name": "online", "chunk_size": 100}, "model": {"name": "bilstm", "hidden": 8, "embedding": 8},
        "training": {"batch_size": 32, "until": {"epochs": 2}}, "strategies": {"random_init": {}}, "seeds": [0],
    }  # fmt: skip
    assert launch.run_scenario(raw, "scenario", launch.RunOptions(tmp_path, "cuda", quiet=True)).failures == {}


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_channels_last_is_not_much_slower_than_channels_first(precision):
    """It is faster for all but wide networks in float32, for which it was 3 % slower on an H200."""
    seconds = []
    for memory_format in (torch.channels_last, torch.contiguous_format):
        training = training_of("resnet18", True, precision=precision)
        training.stepper.model.to(memory_format=memory_format)
        (request,) = step_requests(training.stepper, training.stepper.samples, torch.arange(300, device=CUDA), 64)
        seconds.append(seconds_per_call(request.run, CUDA, 5, 0.1))
    assert seconds[0] < 1.3 * seconds[1]


def test_deterministic_mode_fills_no_empty_tensors(tmp_path):
    set_up_torch(CUDA, Training(), deterministic=True)
    try:
        empty = torch.empty(4, device=CUDA).fill_(1)
        pointer = empty.data_ptr()
        del empty
        again = torch.empty(4, device=CUDA)
        assert again.data_ptr() == pointer
        assert again.tolist() == [1.0] * 4  # not a number, if it were filled
    finally:
        set_up_torch(CUDA, Training())


def test_a_device_side_assert_is_a_lost_device():
    """In a process of its own, which can use the device no more."""
    code = (
        "import torch; from warmstart_sim.experiment.run_cell import _is_lost; cuda = torch.device('cuda')\n"
        "assert not _is_lost(cuda)\n"
        "try: torch.zeros(2, device=cuda)[torch.tensor([5], device=cuda)].cpu()\n"
        "except RuntimeError: assert _is_lost(cuda); print('lost')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "lost\n", done.stderr
