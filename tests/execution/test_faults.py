"""Faults, for real: whatever is killed, full or damaged, the tables end as those of a run that nothing disturbed."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from tests.execution.test_local import POOL, assert_same_tables, run_cells, tables
from tests.execution.waiting import PATIENCE, wait_for
from warmstart_sim import preemption
from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import RunError, WarmstartError
from warmstart_sim.execution import launch
from warmstart_sim.execution import ray as on_ray
from warmstart_sim.execution.options import RunOptions
from warmstart_sim.execution.ray import Cluster, files
from warmstart_sim.execution.scheduler import Scheduler, assign_tasks
from warmstart_sim.execution.tasks import TaskQueue
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.store import RunFolder

# Ray keeps sockets, files and processes for the garbage collector, and says so in warnings of its own.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]
RAY = pytest.mark.xdist_group("ray")  # one cluster, one test at a time
HERE = "tests.execution.test_faults"


def gated(previous, fresh, context, gate: str, warm: bool):
    """Stops at the start of round 1 where there is a gate, until the process is asked to stop or the gate is gone."""
    if context.round == 1 and Path(gate).is_dir():
        (Path(gate) / f"{os.getpid()}-{warm}").touch()
        wait_for(lambda: preemption.requested() or not Path(gate).is_dir())
    return previous if warm else fresh


def opened(gate: Path) -> None:
    for path in gate.iterdir():
        path.unlink()
    gate.rmdir()


def killed_once(previous, fresh, context, marker: str):
    """Kills its process in round 1, unless it has done so before."""
    if context.round == 1 and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return previous


@pytest.fixture
def small(tiny_scenario, tmp_path) -> dict:
    """Two cells that can be stopped at the start of round 1."""
    gate = {"start": f"{HERE}:gated", "gate": str(tmp_path / "gate")}
    tiny_scenario["strategies"] = {arm: {**gate, "warm": arm == "warm"} for arm in ("cold", "warm")}
    tiny_scenario["training"] = {"batch_size": 32, "until": {"epochs": 5}}
    tiny_scenario["model"] = {"name": "mlp", "widths": [8]}
    return tiny_scenario | {"seeds": [0]}


@pytest.fixture
def undisturbed(small, tmp_path) -> Path:
    run_cells(small, tmp_path / "undisturbed", workers=1)
    return tmp_path / "undisturbed"


def command(raw: dict, tmp_path: Path, *options: str) -> list[str]:
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(yaml.safe_dump(raw, sort_keys=False))
    return ["run", str(scenario), "--quiet", "--out", str(tmp_path / "run"), "--device", "cpu", *options]


# Options of executors, and how many cells each has under way.
WAYS = [
    pytest.param(("--workers", "1"), 1, id="here", marks=POOL),
    pytest.param(("--workers", "2"), 2, id="pool", marks=POOL),
    pytest.param(("--workers", "2", "--ray"), 2, id="ray", marks=RAY),
    pytest.param(("--workers", "1", "--ray", "--ray-storage=returned"), 1, id="ray-returned", marks=RAY),
]


def addressed(options: tuple[str, ...], request: pytest.FixtureRequest) -> list[str]:
    return [f"--ray={request.getfixturevalue('ray_cluster').address}" if each == "--ray" else each for each in options]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "under_way"), WAYS)
def test_sigterm_ends_with_every_cell_checkpointed_within_its_round(
    small, undisturbed, tmp_path, request, started, options, under_way
):
    given = command(small, tmp_path, *addressed(options, request))
    (tmp_path / "gate").mkdir()
    process = started(*given)
    wait_for(lambda: len(list((tmp_path / "gate").iterdir())) == under_way, process)
    with pytest.raises(WarmstartError, match="another warmstart-sim is running in this folder"):
        run_cells(small, tmp_path / "run", workers=1)  # a second driver, while the first is at work
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE)
    assert said == "warmstart-sim: stopped by SIGTERM at a checkpoint; give the same command again to resume\n"
    assert process.returncode == 143
    checkpoints = list(tmp_path.glob("run/cells/*/checkpoint.pt"))
    assert len(checkpoints) == under_way
    for path in checkpoints:
        checkpoint = torch.load(path, weights_only=True)
        assert [row["round"] for row in checkpoint["rounds"]] == [0]
        assert len(checkpoint["training"]["recorder"]["epochs"]) == 1  # the epoch that was under way, to its end
    opened(tmp_path / "gate")
    run_cells(small, tmp_path / "run", workers=1)
    assert_same_tables(undisturbed, tmp_path / "run")


def alive(process: str) -> bool:
    """Whether there is such a process, and it is not just a name that nobody has asked for its end."""
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())
    except OSError:
        return False


@RAY
@pytest.mark.slow
def test_a_driver_on_ray_that_is_killed_takes_its_worker_along_and_the_next_one_goes_on(
    small, undisturbed, tmp_path, ray_cluster, started
):
    (tmp_path / "gate").mkdir()
    given = command(small, tmp_path, "--workers", "1", f"--ray={ray_cluster.address}")
    process = started(*given)
    wait_for(lambda: any((tmp_path / "gate").iterdir()), process)
    (gate,) = (tmp_path / "gate").iterdir()
    worker = gate.name.partition("-")[0]
    assert alive(worker)
    process.kill()
    process.communicate()
    wait_for(lambda: not alive(worker))
    opened(tmp_path / "gate")
    run_cells(small, tmp_path / "run", workers=1, ray=ray_cluster.address)
    assert_same_tables(undisturbed, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "tries"),
    [
        pytest.param({"workers": 2}, 2, marks=POOL, id="pool"),
        # All cells are lost at once, and tried again one by one; then Ray itself tries the one that kills its worker.
        pytest.param({"workers": 1, "slots": 4, "batching": "separate"}, 3, marks=RAY, id="ray"),
    ],
)
def test_a_killed_worker_is_replaced_and_a_cell_that_kills_every_worker_fails_alone(
    small, tmp_path, request, options, tries
):
    once = {"start": f"{HERE}:killed_once", "marker": str(tmp_path / "marker")}
    (tmp_path / "marker").touch()
    run_cells(small | {"strategies": {**small["strategies"], "once": once}}, tmp_path / "undisturbed", workers=1)
    if "slots" not in options:  # in a batch, only one cell kills the worker; it takes the others along once
        (tmp_path / "marker").unlink()
    small["strategies"] |= {"always": {"start": "tests.experiment.poison:killed"}, "once": once}
    started = request.getfixturevalue("ray_cluster" if "slots" in options else "quick_workers")
    cluster = {"ray": started.address} if "slots" in options else {}
    outcome = run_cells(small, tmp_path / "run", retries=tries - 1, **options, **cluster)
    ((name, reason),) = outcome.failures.items()
    assert name.startswith("always-")
    assert reason.endswith(f"; tried {tries} times")
    assert ("it was killed or " if cluster else "SIGKILL") in reason
    run = RunFolder(tmp_path / "run")
    assert len(run.cell(name).losses()) == tries
    assert run.cell(name).error() == reason
    assert [len(json.loads(path.read_text())) for path in run.path.glob("cells/once-*/lost.json")] == [1]
    for mine, theirs in zip(tables(run.path), tables(tmp_path / "undisturbed"), strict=True):
        sound = mine[mine["strategy"] != "always"].reset_index(drop=True)  # the other's first rounds are there, too
        assert sound.equals(theirs)


@RAY
@pytest.mark.slow
def test_a_lost_machine_of_a_cluster_takes_nothing_with_it(small, undisturbed, tmp_path, ray_cluster):
    cells = scenarios.plan(small, "scenario")[1]
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    (tmp_path / "gate").mkdir()
    node = ray_cluster.add_node(num_cpus=1)
    reasons: list[str] = []

    def on_event(event):
        if event.kind == "retried":
            reasons.append(event.error)
            opened(tmp_path / "gate")

    def pull_the_plug() -> None:
        wait_for(lambda: len(list((tmp_path / "gate").iterdir())) == 2)
        ray_cluster.remove_node(node, allow_graceful=False)

    with on_ray.connected(RunOptions(ray=ray_cluster.address, device="cpu"), cells) as cluster:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # One cell begins on the machine that will be lost, one elsewhere; the third machine stays free.
        places = iter([node.node_id, ray_cluster.head_node.node_id])
        remote = Cluster.remote

        def placed(cluster, function):
            def options(**given):
                there = NodeAffinitySchedulingStrategy(next(places), soft=True)
                return remote(cluster, function).options(scheduling_strategy=there, **given)

            return SimpleNamespace(options=options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Cluster, "remote", placed)
            thread = threading.Thread(target=pull_the_plug)
            thread.start()
            scheduler = Scheduler(TaskQueue(cells, run), [on_event])
            on_ray.run_cells(cluster, scheduler, ExecutionSettings(tmp_path), 2, {}, print)
            thread.join()
    assert scheduler.failures == {}
    (reason,) = reasons
    assert "its machine was lost" in reason
    run_cells(small, tmp_path / "run", workers=1)  # all is complete: it writes the tables
    assert_same_tables(undisturbed, tmp_path / "run")


def test_a_disk_that_is_full_for_returned_results_ends_in_one_clear_line(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(files, "write_bytes", full)
    with pytest.raises(RunError, match=r"cells: cannot be written or read \(No space left on device\); what is"):
        files.write_files(RunFolder(tmp_path), {"cells": b"result"})


@pytest.mark.parametrize("name", ["result.json", "weights.pt", "checkpoint.pt"])
def test_a_damaged_file_is_named_and_its_cell_runs_again(small, undisturbed, tmp_path, capsys, monkeypatch, name):
    run = RunFolder(tmp_path / "undisturbed")
    cell = run.cell(next(iter(sorted(run.complete_cells()))))
    before = (run.path / "rounds.csv").read_text()
    if name == "checkpoint.pt":  # one byte in the middle is another
        content = bytearray((cell.path / "weights.pt").read_bytes())
        content[len(content) // 2] ^= 1
        (cell.path / name).write_bytes(content)
        (cell.path / "result.json").unlink()
    else:
        content = (cell.path / name).read_bytes()
        (cell.path / name).write_bytes(content[: len(content) // 2])
    capsys.readouterr()
    launch.run_scenario(small, "scenario", launch.RunOptions(out=run.path, device="cpu", workers=1))
    said = capsys.readouterr().err
    assert f"note: {cell.path / name} is damaged; what was in it is computed again" in said
    assert f"{cell.path.name.partition('-')[0]}, seed 0: done" in said
    assert (run.path / "rounds.csv").read_text() != before  # other seconds: the cell ran
    assert cell.damage() is None
    assert cell.complete


def test_an_exception_is_not_tried_again(small, tmp_path):
    small["strategies"] = {"crash": {"start": "tests.experiment.poison:crash"}}
    (name,) = run_cells(small, tmp_path, workers=1).failures
    assert RunFolder(tmp_path).cell(name).losses() == []


class Fake:
    """A worker that keeps what it is given."""

    def __init__(self) -> None:
        self.tasks: dict = {}
        self.given: list[str] = []

    def give(self, task) -> None:
        self.given.append(task.id)


def test_a_lost_task_is_tried_again_alone_and_first(tiny_scenario, tmp_path):
    cells = scenarios.plan(tiny_scenario, "scenario")[1]
    scheduler = Scheduler(TaskQueue(cells, RunFolder(tmp_path)), retries=2)
    one, other = Fake(), Fake()
    assign_tasks(scheduler, [one, other], slots=2)
    assert [len(one.tasks), len(other.tasks)] == [2, 2]
    lost, one.tasks = one.tasks, {}
    for task in lost.values():
        scheduler.retry_or_fail(task, "killed")
    assign_tasks(scheduler, [one, other], slots=2)
    assert len(one.tasks) == 1  # though there are slots for two
    assert one.tasks.keys() < lost.keys()
    assert len(other.tasks) == 2
    again = one.tasks.popitem()[1]
    scheduler.retry_or_fail(again, "killed")
    scheduler.retry_or_fail(again, "killed once more")
    assert scheduler.failures == {again.id: "killed once more; tried 3 times"}
