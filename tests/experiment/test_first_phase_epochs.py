"""`stream.first_phase_epochs` and `repeats`: where later rounds start, and one first phase for all of it."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.experiment.test_experiment import cells_of, result, same
from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution.size import scenario_size
from warmstart_sim.experiment.run_cell import run_cell
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario.resolved import resolved_scenario


@pytest.fixture
def execution(tmp_path) -> ExecutionSettings:
    return ExecutionSettings(data_root=tmp_path)


@pytest.fixture
def early(tiny_scenario) -> dict:
    """A split whose second round starts from the first phase after 2, 3 or all 5 epochs."""
    return {
        **tiny_scenario,
        "stream": {"name": "split"},
        "model": {"name": "mlp", "widths": [6]},
        "training": {"batch_size": 32, "until": {"epochs": 5}},
        "strategies": {"warm_start": {}},
        "seeds": [0],
        "vary": {"stream.first_phase_epochs": [2, 3, 5]},
    }


def own(found: dict) -> dict:
    """A cell's result without the rows of its first phase."""
    return {**found, **{name: [row for row in found[name] if not row["shared"]] for name in ("rounds", "epochs")}}


def test_a_cell_starts_from_the_weights_that_a_shorter_first_phase_ends_with(early, tmp_path, execution):
    cells = cells_of(early)
    assert len(scenarios.first_phases(cells)) == 1
    found = [result(cell, tmp_path / "run", execution) for cell in cells]
    (folder,) = (tmp_path / "run" / "first_phases").iterdir()
    assert sorted(path.name for path in folder.glob("*.pt")) == [
        "weights.pt", "weights_epoch2.pt", "weights_epoch3.pt", "weights_epoch5.pt"
    ]  # fmt: skip
    for epochs, each in zip((2, 3, 5), found, strict=True):
        assert each["rounds"][0] == found[0]["rounds"][0]
        assert each["rounds"][0]["epochs"] == 5
        short = copy.deepcopy(early) | {"vary": {}}
        short["training"] |= {"until": {"epochs": epochs}, "later_rounds": {"until": {"epochs": 5}}}
        assert same(own(each), own(result(cells_of(short)[0], tmp_path / str(epochs), execution)))
    at_the_end = result(cells_of({**early, "vary": {}})[0], tmp_path / "end", execution)
    assert same(found[-1], at_the_end)


@pytest.mark.parametrize("stop_after", [2, 3, 4, 7])
def test_a_first_phase_that_was_interrupted_keeps_the_same_weights(early, tmp_path, execution, stop_after):
    cell = cells_of(early)[1]
    epochs = 0

    def kill(progress):
        nonlocal epochs
        epochs += 1
        if epochs == stop_after:
            raise KeyboardInterrupt

    eager = ExecutionSettings(execution.data_root, checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        run_cell(cell, RunFolder(tmp_path / "killed"), eager, kill)
    assert same(result(cell, tmp_path / "through", execution), result(cell, tmp_path / "killed", execution))


def test_kept_weights_that_are_lost_or_damaged_are_computed_again(early, tmp_path, execution):
    two, three, _ = cells_of(early)
    before = result(two, tmp_path / "before", execution)
    run = RunFolder(tmp_path / "run")
    result(three, run.path, execution)
    folder = two.first_phase.folder(run)
    assert folder.complete
    (folder.path / "weights_epoch2.pt").write_bytes(b"half a file")
    assert not folder.complete
    assert "weights_epoch2.pt is damaged" in folder.damage()
    assert same(before, result(two, run.path, execution))
    (folder.path / "weights_epoch3.pt").unlink()
    assert not folder.complete


def test_a_first_phase_that_converges_earlier_fails_the_cell_with_the_reason(early, tmp_path, execution):
    early["training"]["until"] = {"train_accuracy": 0.01, "max_epochs": 5}
    run = RunFolder(tmp_path)
    cells = cells_of(early)
    for cell in cells:
        epochs = cell.first_phase_epochs
        reason = f"stream.first_phase_epochs is {epochs}, but the first phase ended in epoch 1 (converged)"
        assert run_cell(cell, run, execution) == reason
    assert cells[0].first_phase.folder(run).complete


def test_the_first_phase_of_a_pretrain_keeps_weights_too(early, tmp_path, execution):
    few = {"train_samples": 60, "test_samples": 40}
    early["data"] = {"name": "digits", **few}
    early["stream"] = {"name": "pretrain", "source": {"name": "noisy_digits", **few}}
    two, _, _ = (result(cell, tmp_path / "run", execution) for cell in cells_of(early))
    early["stream"]["source"]["training"] = {"until": {"epochs": 2}}
    short = result(cells_of({**early, "vary": {}})[0], tmp_path / "short", execution)
    assert same(own(two), own(short))


def test_repeats_are_rounds_on_the_same_data_that_share_the_first_phase(early, tmp_path, execution):
    early["vary"] = {"stream.repeats": [1, 2]}
    early["training"]["until"] = {"epochs": 1}
    cells = cells_of(early)
    plain = cells_of({**early, "vary": {}})[0]
    assert scenarios.first_phases(cells) == [plain.first_phase]
    once, twice = (result(cell, tmp_path / "run", execution) for cell in cells)
    assert [row["new_samples"] for row in twice["rounds"]] == [75, 75, 0, 0]
    assert [row["train_samples"] for row in twice["rounds"]] == [75, 150, 150, 150]
    assert once["rounds"] == twice["rounds"][:3]
    assert result(plain, tmp_path / "run", execution)["rounds"] == twice["rounds"][:2]
    assert not torch.equal(once["weights"]["head.weight"], twice["weights"]["head.weight"])
    assert scenario_size(early, "file", tmp_path).rounds == 1 + 2 + 3


def test_the_stored_scenario_gives_the_same_cells(early):
    scenario, cells = scenarios.plan(early, "file")
    again = scenarios.plan(resolved_scenario(early, scenario), "stored")[1]
    assert [(cell.digest, cell.kept_epochs) for cell in again] == [(cell.digest, (2, 3, 5)) for cell in cells]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vary": {"stream.first_phase_epochs": [2, 6]}}, "found 6; the first phase has at most 5 epochs, by training"),
        ({"stream": {"name": "split", "first_phase_epochs": 0}, "vary": {}}, "found 0 (allowed: a whole number > 0)"),
        ({"stream": {"name": "online", "first_phase_epochs": 2}, "vary": {}}, "unknown key"),
        ({"stream": {"name": "pretrain", "checkpoint": "a.pt"}}, "there is no first phase: a `checkpoint` takes its"),
        (
            {"stream": {"name": "pretrain", "source": {"name": "digits", "training": {"until": {"epochs": 1}}}}},
            "found 2; the first phase has at most 1 epochs, by stream.source.training.until",
        ),
    ],
)
def test_an_epoch_that_there_cannot_be_is_named_when_the_file_is_checked(early, changes, message):
    with pytest.raises(WarmstartError) as caught:
        cells_of({**early, **changes})
    assert "stream.first_phase_epochs: " + message in str(caught.value)


def test_a_rehearsal_starts_from_early_epochs_too(early):
    early["training"]["until"] = {"epochs": 300}
    early["vary"] = {"stream.first_phase_epochs": [20, 300]}
    cells = cells_of({**early, "rehearsal": True})
    assert [cell.first_phase_epochs for cell in cells] == [1, 2]
    assert {cell.first_phase.kept_epochs for cell in cells} == {(1, 2)}
