"""Cells on Ray: the tables of every other executor, whatever the machines share, and what users are told."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.execution.test_local import assert_same_tables, run_cells
from warmstart_sim import api
from warmstart_sim import scenario as scenarios
from warmstart_sim.cli import with_ray_address
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution import launch
from warmstart_sim.execution import ray as on_ray
from warmstart_sim.execution.options import RunOptions
from warmstart_sim.execution.ray import check_options, files, reasons
from warmstart_sim.execution.ray import cluster as on_cluster
from warmstart_sim.execution.ray import worker as on_worker
from warmstart_sim.execution.ray.user_modules import own_modules
from warmstart_sim.execution.ray.worker import (
    BatchChannel,
    Job,
    check_versions,
    installed_versions,
    is_visible,
    results_folder,
)
from warmstart_sim.execution.scheduler import Scheduler
from warmstart_sim.execution.tasks import Task, TaskQueue
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.environment import device_name
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import splits
from warmstart_sim.types import Dataset, Samples

# Ray keeps sockets, files and processes for the garbage collector, and says so in warnings of its own.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]
RAY = pytest.mark.xdist_group("ray")  # one cluster, one test at a time
ESTIMATE = "estimated_isolated_seconds"


def rounds(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "rounds.csv")


@pytest.fixture
def small(tiny_scenario) -> dict:
    """Two arms that share a first phase."""
    tiny_scenario["stream"] = {"name": "split"}
    del tiny_scenario["strategies"]["warm_start"]
    return tiny_scenario | {"seeds": [0]}


@RAY
@pytest.mark.slow
def test_ray_gives_the_tables_of_one_process(small, tmp_path, ray_cluster):
    run_cells(small, tmp_path / "one", workers=1)
    for storage in ("auto", "returned"):
        folder = tmp_path / storage
        run_cells(small, folder, workers=2, ray=ray_cluster.address, ray_storage=storage)
        assert_same_tables(tmp_path / "one", folder)
        assert not list(folder.glob(".ray-*"))
        stored = {path.name for path in folder.glob("*/*/*")}
        assert stored == {"result.json", "weights.pt", "settings.json"}
        table = rounds(folder)
        own = table[~table["shared"]]
        assert set(own["timing"]) == {"concurrent"}
        assert own[ESTIMATE].notna().all()
        assert RunFolder(folder).speed()["measured_on"] == device_name("cpu")


def two_clouds(seed: int) -> Samples:
    generator = np.random.default_rng(seed)
    labels = np.arange(120) % 2
    return Samples(generator.normal(labels[:, None, None, None], 1, (120, 1, 4, 4)).astype(np.float32), labels)


@RAY
@pytest.mark.slow
def test_arrays_and_functions_given_from_python_reach_the_workers(small, tmp_path, ray_cluster):
    data = Dataset("mine", two_clouds(0), two_clouds(1), 2)
    half = 0.5

    def halved(previous, fresh, context):  # a closure, which no other process can import
        return {name: tensor * half if tensor.is_floating_point() else tensor for name, tensor in previous.items()}

    del small["data"]["train_samples"], small["data"]["test_samples"]
    settings = {"data": data, "strategies": {"halved": halved}, "quiet": True, "device": "cpu", "model": "mlp"}
    api.run(small, out=tmp_path / "one", **settings)
    api.run(small, out=tmp_path / "ray", ray=ray_cluster.address, workers=1, ray_storage="returned", **settings)
    assert_same_tables(tmp_path / "one", tmp_path / "ray")


@RAY
@pytest.mark.slow
def test_own_modules_travel_to_machines_that_do_not_have_them(small, tmp_path, ray_cluster, monkeypatch):
    import ray

    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "own_start.py").write_text(
        "from own_factor import FACTOR\n\n"
        "def shrunk(previous, fresh, context):\n"
        "    return {k: v * FACTOR if v.is_floating_point() else v for k, v in previous.items()}\n"
    )
    (mine / "own_factor.py").write_text("FACTOR = 0.5\n")
    monkeypatch.syspath_prepend(str(mine))
    small |= {"strategies": {"shrunk": {"start": "own_start:shrunk"}}, "model": {"name": "mlp", "widths": [8]}}
    cells = scenarios.plan(small, "scenario")[1]
    scenarios.cells.import_user_modules(cells, "scenario")
    try:
        assert own_modules(cells) == [mine / "own_factor.py", mine / "own_start.py"]
        ray.shutdown()  # modules travel when the cluster is joined
        with on_ray.connected(RunOptions(ray=ray_cluster.address, workers=1, device="cpu"), cells) as cluster:
            for file in mine.glob("*.py"):  # what is imported here already is now nowhere but in Ray
                file.unlink()
            run = RunFolder(tmp_path / "run")
            run.path.mkdir()
            execution = ExecutionSettings(tmp_path)
            scheduler = Scheduler(TaskQueue(cells, run))
            on_ray.run_cells(cluster, scheduler, execution, 1, {}, print)
    finally:
        for name in ("own_start", "own_factor"):
            sys.modules.pop(name, None)
    assert scheduler.failures == {}
    assert run.cell(cells[0].id).complete


@RAY
@pytest.mark.slow
def test_ray_alone_starts_on_this_machine_says_nothing_and_leaves_nothing(small, tmp_path):
    pytest.importorskip("ray", reason='needs Ray: pip install "warmstart-sim[ray]"')
    scenario = tmp_path / "small.yaml"
    scenario.write_text(yaml.safe_dump(small | {"model": {"name": "mlp", "widths": [8]}}, sort_keys=False))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", "from warmstart_sim.cli import main; main()", "run", "--quiet", "--ray"]
    ended = subprocess.run(
        [*command, str(scenario), "--workers", "1", "--out", str(tmp_path / "run"), "--device", "cpu"],
        env=environment | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(rounds(tmp_path / "run")) == 4
    assert not (tmp_path / ".ray").exists()  # Ray's own token would have been written there


def job(folder: Path, **settings: object) -> Job:
    defaults = {"storage": "auto", "versions": {}, "digests": {}, "tasks": {}, "execution": ExecutionSettings(folder)}
    return Job(probe=folder / ".probe", monitor=None, **{**defaults, **settings})


@RAY
@pytest.mark.slow
def test_a_worker_with_other_data_ends_the_run(small, tmp_path, ray_cluster, monkeypatch):
    fetch = launch._load_data
    monkeypatch.setattr(launch, "_load_data", lambda *args: dict.fromkeys(fetch(*args), "another digest"))
    with pytest.raises(WarmstartError, match=r": data set noisy_digits in .* is not the driver's"):
        run_cells(small, tmp_path / "run", workers=1, ray=ray_cluster.address)


def test_a_worker_loads_a_data_set_once_to_compare_it(small, tmp_path, monkeypatch):
    cells = scenarios.plan(small, "scenario")[1]
    digests = launch._load_data(cells, tmp_path)
    loads = []
    load = splits.load_component
    monkeypatch.setattr(splits, "load_component", lambda *args: (loads.append(args), load(*args))[1])
    tasks = [Task(cell) for cell in cells[:2]]
    channel = BatchChannel(job(tmp_path, digests=digests), RunFolder(tmp_path), list(tasks))
    assert [channel.recv() for _ in tasks] == tasks
    assert len(loads) == 1


def test_a_worker_with_other_versions_is_refused(monkeypatch):
    monkeypatch.setattr(on_worker.platform, "node", lambda: "node7")
    check_versions(installed_versions())
    with pytest.raises(WarmstartError, match=r"node7 has torch .*, the driver 1.0; install the same versions"):
        check_versions({**installed_versions(), "torch": "1.0"})


def test_a_worker_that_must_share_the_folder_and_does_not_see_it_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason='needs Ray: pip install "warmstart-sim[ray]"')
    monkeypatch.setattr(on_worker.platform, "node", lambda: "node7")
    missing = job(tmp_path / "missing", storage="shared")
    message = r"--ray-storage shared: node7 does not see .*missing, or may not write there"
    with pytest.raises(WarmstartError, match=message), results_folder(missing, []):
        pass


def test_a_worker_knows_the_drivers_folder_by_the_file_that_lies_there(tmp_path, monkeypatch):
    monkeypatch.setattr(on_worker, "PROBE_SECONDS", 0.0)
    (tmp_path / "same").mkdir()
    (tmp_path / "same" / ".probe").touch()
    (tmp_path / "another").mkdir()  # of the same name on another machine
    folders = ("same", "another", "missing")
    assert [is_visible(tmp_path / folder / ".probe") for folder in folders] == [True, False, False]


def test_nobody_at_an_address_is_said_at_once(small, tmp_path):
    ray = pytest.importorskip("ray", reason='needs Ray: pip install "warmstart-sim[ray]"')
    ray.shutdown()  # a connection that exists would be kept
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(WarmstartError, match=f"--ray: cannot join {address} .*refused"):
        run_cells(small, tmp_path / "run", ray=address)


def test_without_ray_one_line_says_how_to_get_it(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(WarmstartError, match=r'pip install "warmstart-sim\[ray\]"'):
        run_cells(small, tmp_path / "run", ray="local")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda:1"}, "--device cuda:1: with --ray, Ray hands out the GPUs"),
        ({"gpus_per_worker": 2.0}, "--gpus-per-worker 2: a worker has a part of one GPU"),
    ],
)
def test_what_ray_cannot_do_is_said_before_it_is_started(options, message):
    with pytest.raises(WarmstartError, match=message):
        check_options(RunOptions(ray="local", **options))


@pytest.mark.parametrize(
    ("resources", "options", "expected"),
    [
        ({"CPU": 8.0}, {}, ("cpu", 8)),
        ({"CPU": 8.0, "GPU": 2.0}, {}, ("cuda:0", 2)),
        ({"CPU": 8.0, "GPU": 1.0}, {"gpus_per_worker": 0.25}, ("cuda:0", 4)),
        ({"CPU": 8.0, "GPU": 1.0}, {"gpus_per_worker": 0.1}, ("cuda:0", 8)),
        ({"CPU": 8.0, "GPU": 2.0}, {"gpus_per_worker": 0.0}, ("cpu", 8)),
        ({"CPU": 8.0, "GPU": 2.0}, {"device": "cpu", "workers": 3}, ("cpu", 3)),
    ],
)
def test_as_many_workers_as_fit_on_cpus_and_gpus(resources, options, expected):
    class FakeRay:
        @staticmethod
        def cluster_resources() -> dict[str, float]:
            return resources

    cluster = on_cluster._inspect(FakeRay, RunOptions(ray="local", **options))
    assert (cluster.device, cluster.size) == expected


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        (["run", "--ray"], ["run", "--ray=local"]),
        (["run", "a.yaml", "--ray", "--quiet"], ["run", "a.yaml", "--ray=local", "--quiet"]),
        (["run", "--ray", "scenarios/a.yaml"], ["run", "--ray=local", "scenarios/a.yaml"]),
        (["run", "--ray", "auto", "a.yaml"], ["run", "--ray=auto", "a.yaml"]),
        (["run", "a.yaml", "--ray", "10.0.0.1:6379"], ["run", "a.yaml", "--ray=10.0.0.1:6379"]),
        (["run", "a.yaml", "--ray", "ray://head:10001"], ["run", "a.yaml", "--ray=ray://head:10001"]),
        (["run", "a.yaml", "--ray=head:1"], ["run", "a.yaml", "--ray=head:1"]),
    ],
)
def test_an_address_may_follow_ray_and_a_scenario_is_not_one(given, parsed):
    assert with_ray_address(given) == parsed


def test_returned_files_land_with_the_result_last_and_nothing_stale_beside_it(small, tmp_path, monkeypatch):
    run_cells(small | {"stream": {"name": "static"}}, tmp_path / "there", workers=1)
    task = Task(scenarios.plan(small | {"stream": {"name": "static"}}, "scenario")[1][0])
    there, here = RunFolder(tmp_path / "there"), RunFolder(tmp_path / "here")
    returned = files.read_files(there, task)
    task.folder(here).fail("last time")
    (task.folder(here).path / "checkpoint.pt").touch()
    order = []
    write = files.write_bytes
    monkeypatch.setattr(files, "write_bytes", lambda path, content: (order.append(path.name), write(path, content)))
    files.write_files(here, dict(sorted(returned.items(), reverse=True)))
    assert order[-1] == "result.json"
    assert sorted(path.name for path in task.folder(here).path.iterdir()) == ["result.json", "weights.pt"]
    assert task.folder(here).result() == task.folder(there).result()


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_a_connection_that_is_aborted_once_is_tried_again(failures):
    answers = iter([ConnectionAbortedError("Starting Ray client server failed")] * failures)

    class FakeRay:
        @staticmethod
        def init(address: str, **options: object) -> None:
            assert (address, options) == ("ray://head:1", {"logging_level": 40})
            if error := next(answers, None):
                raise error

    again = pytest.raises(ConnectionAbortedError) if failures == 2 else contextlib.nullcontext()
    with again:
        on_cluster._join(FakeRay, "ray://head:1", logging_level=40)
    assert next(answers, None) is None


def test_of_a_traceback_from_another_process_the_last_line_is_told():
    trace = (
        'Initialization failure from server:\nTraceback (most recent call last):\n  File "x", line 1\nValueError: why\n'
    )
    assert reasons.why(ConnectionAbortedError(trace)) == "ConnectionAbortedError: ValueError: why"
