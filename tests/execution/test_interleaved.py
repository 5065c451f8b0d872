"""Slots: who makes a step with whom, and whole runs in which cells fail, diverge, are recorded or interrupted."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from tests.acceleration.simulated_capture import SimulatedCapture
from tests.execution.test_local import POOL, assert_same_tables, run_local
from warmstart_sim import scenario as scenarios
from warmstart_sim.acceleration.device_cache import DeviceCache
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution import interleaved as slots_module
from warmstart_sim.execution import launch
from warmstart_sim.execution.interleaved import RunningTask, StackedStep, run_slots
from warmstart_sim.execution.progress import ProgressEvent, ProgressListener
from warmstart_sim.execution.scheduler import Scheduler
from warmstart_sim.execution.tasks import Task, TaskQueue
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario.resolved import resolved_scenario
from warmstart_sim.training.coroutine import PendingValues
from warmstart_sim.training.settings import Training
from warmstart_sim.training.stepper import Stepper, StepRequest
from warmstart_sim.types import Hooks

# Who makes a step with whom: tasks of so many steps, which only note who steps.


@dataclass
class FakeTask:
    """A task of so many steps."""

    id: str
    steps: int
    title: str = ""
    event = Task.event

    @property
    def cell(self) -> FakeTask:
        """What the coroutine of a task trains."""
        return self


@dataclass
class Script:
    """A source of tasks that records how they end."""

    left: list[tuple[str, int]]
    most: int = 0
    under_way: int = 0
    ends: list[tuple[str, str | None]] = field(default_factory=list)

    def take(self, idle: bool) -> Any:
        assert idle == (self.under_way == 0)
        if not self.left:
            return None
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        return FakeTask(*self.left.pop(0))

    def report(self, event: ProgressEvent) -> None:
        assert event.kind == "finished"
        self.under_way -= 1
        self.ends.append((event.task_id, event.error))


@dataclass
class FakeStepper:
    """Stands for a stepper."""

    name: str
    fails: bool = False

    def step(self, index: torch.Tensor, width: int | None, steps: int = 1) -> None:
        if self.fails:
            raise ZeroDivisionError(self.name)


def steps_of(
    monkeypatch: pytest.MonkeyPatch, script: Script, slots: int, failing: str = "", readings: bool = False
) -> list[str]:
    """Runs the script, and says who made each step, such as "ab"."""
    made: list[str] = []

    def cell_coroutine(task: FakeTask, *args: Any) -> Iterator[Any]:
        name, count = task.id, task.steps
        for k in range(count):
            if readings:
                yield PendingValues(torch.zeros(1))
            try:
                yield StepRequest(FakeStepper(name, fails=name == failing and k == 1), torch.tensor([k]), None)
            except ZeroDivisionError as error:
                return str(error)
        return None

    original = slots_module.separate_steps

    def separate_steps(ready: list[RunningTask]) -> None:
        made.append("".join(sorted(slot.task.id for slot in ready)))
        original(ready)

    monkeypatch.setattr(slots_module, "cell_coroutine", cell_coroutine)
    monkeypatch.setattr(slots_module, "separate_steps", separate_steps)
    run_slots(script, RunFolder(Path("unused")), ExecutionSettings(Path("unused"), slots=slots))
    assert script.under_way == 0
    return made


@pytest.mark.parametrize("readings", [False, True], ids=["minibatches", "minibatches and readings"])
def test_a_slot_that_is_free_takes_the_next_task_before_the_others_make_their_next_step(monkeypatch, readings):
    script = Script([("a", 4), ("b", 1), ("c", 2), ("d", 0), ("e", 2)])
    assert steps_of(monkeypatch, script, slots=2, readings=readings) == ["ab", "ac", "ac", "ae", "e"]
    assert script.most == 2
    assert script.ends == [(name, None) for name in "bcdae"]


def test_more_slots_than_tasks_are_as_many_as_there_are_tasks(monkeypatch):
    assert steps_of(monkeypatch, Script([("a", 2), ("b", 1)]), slots=5) == ["ab", "a"]
    assert steps_of(monkeypatch, Script([]), slots=5) == []


def test_a_step_that_fails_is_told_to_its_own_training_alone(monkeypatch):
    script = Script([("a", 3), ("b", 3), ("c", 2), ("d", 1)])
    assert steps_of(monkeypatch, script, slots=3, failing="b") == ["abc", "abc", "ad"]
    assert script.ends == [("b", "b"), ("c", None), ("a", None), ("d", None)]


# Who is stacked with whom.


class Sparse(nn.Module):
    """A network that may have dropout."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 4), nn.Linear(4, 10)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.body(inputs)))


@pytest.fixture
def stacks(monkeypatch) -> list[list[str]]:
    """The kinds of the members of each stack, from the first to the last one that is made."""
    made: list[list[str]] = []

    class Stack(slots_module.Stack):
        def __init__(self, steppers: Any, graph_capture: Any = None) -> None:
            super().__init__(steppers, graph_capture)
            made.append([str(stepper.kind) for stepper in steppers])

    monkeypatch.setattr(slots_module, "Stack", Stack)
    return made


def slot(kind: str, dropout: float = 0.0, hooks: tuple[Hooks, ...] = (), **settings: Any) -> RunningTask:
    from warmstart_sim.training.batches import DeviceSamples
    from warmstart_sim.types import Samples

    rng = np.random.default_rng(0)
    samples = Samples(rng.normal(size=(20, 64)).astype(np.float32), rng.integers(0, 10, 20))
    torch.manual_seed(0)
    stepper = Stepper(Sparse(dropout), Training(**settings), kind=kind)
    stepper.begin(DeviceSamples(samples, None, torch.device("cpu")), hooks)
    return RunningTask(None, iter(()), None, StepRequest(stepper, torch.arange(5), None))  # type: ignore[arg-type]


def trained(slots: list[RunningTask]) -> list[bool]:
    """Whose weights are no longer those of the beginning."""
    torch.manual_seed(0)
    begin = Sparse(0.0).state_dict()["head.weight"]
    return [not torch.equal(slot.request.stepper.model.head.weight, begin) for slot in slots]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_models_of_one_kind_are_stacked_and_all_others_stepped_apart(stacks):
    together = StackedStep(DeviceCache("cpu"))
    term = Hooks(loss_term=lambda batch, logits: logits.square().mean())
    slots = [
        slot("one"), slot("two"), slot("one"), slot("alone"), slot("two"), slot("one", hooks=(term,)),
        slot("bf16", precision="bf16"), slot("bf16", precision="bf16"),
    ]  # fmt: skip
    for _ in range(3):
        together(slots)
    assert stacks == [["one", "one"], ["two", "two"]]
    assert all(trained(slots))
    for members in ([0, 5], [0, 2, 5], [2, 0]):  # one of them is missing, and is back, in another order
        together([slots[k] for k in members])
    assert stacks[2:] == []
    third = slot("one")
    for _ in range(2):
        together([slots[0], slots[2], third])
    together([slots[0], third])
    assert stacks[2:] == [["one"] * 3, ["one"] * 2]


def test_what_has_no_stacked_form_is_stepped_apart_and_not_tried_again(stacks, monkeypatch):
    tried = []
    original = slots_module.Stack.__init__
    monkeypatch.setattr(slots_module.Stack, "__init__", lambda *args: tried.append(1) or original(*args))
    together = StackedStep(DeviceCache("cpu"))
    slots = [slot("sparse", dropout=0.5), slot("sparse", dropout=0.5)]
    for _ in range(3):
        together(slots)
    assert (stacks, len(tried)) == ([], 1)
    assert trained(slots) == [True, True]
    assert all(stepper.optimizer.state[stepper.model.head.weight]["step"] == 3 for stepper in steppers(slots))


def steppers(slots: list[RunningTask]) -> list[Stepper]:
    return [slot.request.stepper for slot in slots]


# Whole runs.

MLP = {"name": "mlp", "widths": [8]}


def ran(
    raw: dict,
    folder: Path,
    workers: int = 1,
    listeners: Sequence[ProgressListener] = (),
    retries: int = 2,
    **execution: Any,
) -> dict[str, str]:
    """Runs a scenario and writes its tables; why cells failed, by their labels."""
    scenario, cells = scenarios.plan(raw, "scenario")
    run = RunFolder(folder)
    with run.locked():
        run.open(resolved_scenario(raw, scenario))
        scheduler = Scheduler(TaskQueue(cells, run), listeners, retries)
        run_local(scheduler, ExecutionSettings(folder, **execution), workers)
        launch.collect(folder)
    return {name.rpartition("-seed")[0]: reason for name, reason in scheduler.failures.items()}


def rounds(folder: Path) -> pd.DataFrame:
    """The rounds of complete cells."""
    table = pd.read_csv(folder / "rounds.csv")
    return table[table["cell_complete"]]


@pytest.mark.parametrize("stream", ["online", "split", "pretrain"])
def test_more_cells_than_slots_give_the_tables_of_one_slot_to_the_bit(tiny_scenario, tmp_path, stream):
    """The cells of two data sets; in two of the streams they wait for first phases."""
    few = {"train_samples": 100, "test_samples": 40}
    options = {"online": {"chunk_size": 40}, "split": {}, "pretrain": {"source": {"name": "digits", **few}}}
    tiny_scenario |= {
        "model": MLP,
        "stream": {"name": stream, **options[stream]},
        "data": {"name": "noisy_digits", **few},
        "vary": {"training.batch_size": [16, 33]},
    }
    if stream != "pretrain":
        tiny_scenario["vary"]["data.name"] = ["digits", "noisy_digits"]
    tiny_scenario["training"] = {"until": {"train_accuracy": 0.9, "max_epochs": 5}}
    assert ran(tiny_scenario, tmp_path / "one") == {}
    assert ran(tiny_scenario, tmp_path / "four", slots=4) == {}
    assert_same_tables(tmp_path / "one", tmp_path / "four")
    assert len(rounds(tmp_path / "one")) >= 2 * 3 * 2 * 2


def kept(folder: Path, *columns: str) -> dict[tuple, list]:
    """What the rounds of a run say, but for losses in their last digits and for times."""
    table = rounds(folder).sort_values(["strategy", "seed", "round"])
    columns = columns or ("epochs", "steps", "status", "train_accuracy", "test_accuracy")
    return {key: part[list(columns)].values.tolist() for key, part in table.groupby(["strategy", "seed"])}


@pytest.mark.parametrize("batching", ["separate", "stacked"])
def test_recorded_cells_in_slots_equal_cells_that_are_not_recorded(tiny_scenario, tmp_path, monkeypatch, batching):
    """Arms with and without augmentation follow one another on the same steppers; layerwise has models of its own."""
    # With powers of two as rates, recorded trainings are the same to the bit.
    tiny_scenario["model"] = {"name": "small_cnn", "channels": [4, 8]}
    tiny_scenario["training"] |= {"optimizer": {"lr": 2**-8}, "until": {"train_accuracy": 0.8, "max_epochs": 4}}
    tiny_scenario["strategies"] |= {
        "augmented": {"start": "warm_start", "augment": ["random_crop"]},
        "turned": {"start": "warm_start", "augment": ["rotation"]},
        "layerwise": {},
    }
    tiny_scenario["seeds"] = [0]
    captures: list[SimulatedCapture] = []
    ran(tiny_scenario, tmp_path / "plain", slots=2, batching=batching)
    cache = functools.partial(
        DeviceCache, make_capture=lambda device: captures.append(SimulatedCapture()) or captures[-1]
    )
    monkeypatch.setattr(slots_module, "DeviceCache", cache)
    assert ran(tiny_scenario, tmp_path / "recorded", slots=2, batching=batching) == {}
    assert kept(tmp_path / "recorded") == kept(tmp_path / "plain")
    losses = [rounds(tmp_path / name)["test_loss"] for name in ("plain", "recorded")]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    steps = rounds(tmp_path / "plain")["steps"].sum()
    assert sum(capture.replays for capture in captures) > steps / 2
    if batching == "apart":
        assert len(captures) == 2  # of the steppers: each slot's next cell has that of the last one


def test_stacked_networks_with_batch_norm_differ_from_single_ones_by_chance_only(tiny_scenario, tmp_path):
    """Batches of all sizes and augmentation, so that masks are used and each cell draws for its own; paired by seed."""
    tiny_scenario |= {
        "data": {"name": "digits", "train_samples": 120, "test_samples": 200},
        "stream": {"name": "online", "chunk_size": 60},
        "model": {"name": "small_cnn", "channels": [3, 4]},
        "strategies": {"warm_start": {"augment": {"random_crop": 1}}},
        "seeds": list(range(10)),
    }
    until = {"train_accuracy": 0.85, "max_epochs": 60}
    tiny_scenario["training"] = {"batch_size": 22, "optimizer": {"lr": 0.03}, "until": until}
    ran(tiny_scenario, tmp_path / "separate")
    ran(tiny_scenario, tmp_path / "stacked", slots=5, batching="stacked")
    one, other = (rounds(tmp_path / name).sort_values(["seed", "round"]) for name in ("separate", "stacked"))
    one, other = (table.set_index(["seed", "round"]) for table in (one, other))
    assert (one.index == other.index).all()
    assert (one["test_loss"] != other["test_loss"]).any()
    assert (other["status"] == "converged").all()
    for column in ("test_accuracy", "epochs"):
        difference = (other[column] - one[column]).groupby("seed").mean()
        # Wide: with other last bits, another machine gives other differences, and one in 20 may not fail.
        assert abs(difference.mean()) <= stats.t.ppf(0.9995, len(difference) - 1) * difference.sem(), column


class Explosive(nn.Module):
    """May burst after nine steps; then it looks at its inputs too, so that it has no stacked form."""

    def __init__(self, explodes: bool) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(64, 5), nn.Linear(5, 10)
        self.flatten, self.tanh = nn.Flatten(), nn.Tanh()
        self.explodes, self.steps = explodes, 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.steps += self.training and torch.is_grad_enabled()
        if self.explodes and inputs.isfinite().all() and self.steps > 9:
            raise ZeroDivisionError("burst")
        return self.head(self.tanh(self.body(self.flatten(inputs))))


def explosive(input_shape: tuple[int, ...], classes: int, explodes: bool = False) -> nn.Module:
    return Explosive(explodes)


@pytest.mark.parametrize("batching", ["separate", "stacked"])
def test_cells_that_fail_at_their_start_or_in_a_step_or_diverge_leave_the_others_as_they_are(
    tiny_scenario, tmp_path, batching
):
    tiny_scenario |= {
        "model": {"name": "tests.execution.test_interleaved:explosive"},
        "vary": {"model.explodes": [False, True]},
        "strategies": {
            "warm_start": {},
            "bad_start": {"start": "tests.experiment.poison:crash"},
            "diverges": {"start": "warm_start", "training": {"optimizer": {"name": "sgd", "lr": 1e38}}},
        },
    }
    failures = ran(tiny_scenario, tmp_path / "mixed", slots=5, batching=batching)
    assert failures == {
        **dict.fromkeys(("warm_start-explodes=True", "diverges-explodes=True"), "ZeroDivisionError: burst"),
        "bad_start-explodes=False": "ZeroDivisionError: one arm's own mistake",
        "bad_start-explodes=True": "ZeroDivisionError: burst",
    }
    recorded = [RunFolder(tmp_path / "mixed").cell(path.name).error() for path in tmp_path.glob("mixed/cells/*")]
    assert sorted(filter(None, recorded)) == sorted([*failures.values()] * 2)  # of two seeds
    table = rounds(tmp_path / "mixed").drop(columns="model_explodes")
    assert set(table[table["strategy"] == "diverges"]["status"]) == {"diverged"}

    del tiny_scenario["vary"]
    tiny_scenario["strategies"] = {"warm_start": {}}
    assert ran(tiny_scenario, tmp_path / "sound") == {}
    sound, beside = (kept(folder) for folder in (tmp_path / "sound", tmp_path / "mixed"))
    beside = {key: rows for key, rows in beside.items() if key[0] == "warm_start"}
    if batching == "separate":
        assert beside == sound
    else:
        assert beside.keys() == sound.keys()
        assert min(beside[key][-1][4] / sound[key][-1][4] for key in sound) > 0.8  # test accuracy


@pytest.mark.parametrize("batching", ["separate", "stacked"])
@pytest.mark.parametrize("after", [5, 17])
def test_a_run_interrupted_within_rounds_goes_on_where_it_was(tiny_scenario, tmp_path, batching, after):
    tiny_scenario |= {"model": {"name": "small_cnn", "channels": [4, 8]}, "seeds": [0]}
    tiny_scenario["strategies"] = {"layerwise": {}, "warm_start": {}, "frozen": {"start": "layerwise", "freeze": True}}
    tiny_scenario["training"]["until"] = {"epochs": 4}
    execution = {"slots": 2, "batching": batching, "checkpoint_seconds": 0}

    epochs = 0

    def interrupt_once(event: ProgressEvent) -> None:
        nonlocal epochs
        epochs += event.kind == "epoch"
        if epochs == after:
            epochs += 1000
            raise KeyboardInterrupt

    default = torch.random.get_rng_state()
    with pytest.raises(KeyboardInterrupt) as interrupt:
        ran(tiny_scenario, tmp_path / "stopped", listeners=[interrupt_once], **execution)
    del interrupt
    assert torch.equal(torch.random.get_rng_state(), default)
    assert len(list(tmp_path.glob("stopped/cells/*/checkpoint.pt"))) == 2
    epochs = 1000
    assert ran(tiny_scenario, tmp_path / "stopped", listeners=[interrupt_once], **execution) == {}
    # Only one epoch is trained twice: the one that was reported and not checkpointed any more.
    assert epochs - 1000 == 3 * 3 * 4 - after + 1
    ran(tiny_scenario, tmp_path / "through")
    if batching == "separate":
        assert_same_tables(tmp_path / "through", tmp_path / "stopped")
    else:
        stopped, through = (rounds(tmp_path / name) for name in ("stopped", "through"))
        assert stopped["epochs"].tolist() == through["epochs"].tolist()
        np.testing.assert_allclose(stopped["train_loss"], through["train_loss"], rtol=0.2)


def test_an_error_that_concerns_the_whole_run_ends_it_and_leaves_what_is_complete(tiny_scenario, tmp_path):
    tiny_scenario |= {"model": MLP, "seeds": [0]}
    tiny_scenario["training"]["until"] = {"epochs": 2}
    tiny_scenario["strategies"] |= {"incomplete": {"start": "tests.experiment.poison:incomplete"}}
    default = torch.random.get_rng_state()
    with pytest.raises(WarmstartError, match="must return a state dict"):
        ran(tiny_scenario, tmp_path, slots=2)
    assert torch.equal(torch.random.get_rng_state(), default)
    assert len(list(tmp_path.glob("cells/*/result.json"))) >= 2
    del tiny_scenario["strategies"]["incomplete"]
    assert ran(tiny_scenario, tmp_path, slots=2) == {}
    assert len(rounds(tmp_path)) == 9


@POOL
def test_a_worker_that_is_killed_takes_no_more_than_its_slots_with_it(tiny_scenario, tmp_path, quick_workers):
    tiny_scenario |= {"model": MLP, "seeds": [0, 1, 2]}
    tiny_scenario["strategies"] = {"warm_start": {}, "killed": {"start": "tests.experiment.poison:killed"}}
    failures = ran(tiny_scenario, tmp_path, workers=2, slots=2, retries=0)
    assert "killed" in failures
    assert all("SIGKILL" in reason for reason in failures.values())
    errors = list(tmp_path.glob("cells/*/error.json"))
    complete = list(tmp_path.glob("cells/*/result.json"))
    assert len(errors) <= 3 * 2
    assert len(errors) + len(complete) == 6
    del tiny_scenario["strategies"]["killed"]
    assert ran(tiny_scenario, tmp_path, slots=2) == {}
    assert len(rounds(tmp_path)) == 9
