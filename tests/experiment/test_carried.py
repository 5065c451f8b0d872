"""What rounds hand on beside their weights: the optimiser's state, and where a schedule over rounds goes on."""

from __future__ import annotations

import copy

import pytest

from tests.experiment.test_experiment import cells_of, result, same
from warmstart_sim.errors import WarmstartError
from warmstart_sim.experiment.run_cell import run_cell
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.store import RunFolder

INFINITE = {"name": "infinite", "epochs": 6, "constant_lr": 0.002}
ANNEALED = {**INFINITE, "anneal": 2, "min_lr": 0.0002}
KEPT = {"optimizer": {"lr": 0.01}, "until": {"epochs": 4}, "optimizer_state": "keep"}


@pytest.fixture
def execution(tmp_path) -> ExecutionSettings:
    return ExecutionSettings(data_root=tmp_path)


@pytest.fixture
def warm(tiny_scenario) -> dict:
    """One cell: warm start in three rounds."""
    model = {"name": "mlp", "widths": [8]}
    return {**tiny_scenario, "model": model, "strategies": {"warm_start": {}}, "seeds": [0]}


@pytest.mark.parametrize("stop_after", [3, 5, 6, 8])
def test_a_cell_interrupted_between_or_within_rounds_equals_one_that_ran_through(warm, tmp_path, execution, stop_after):
    (cell,) = cells_of({**warm, "training": {**KEPT, "schedule": ANNEALED}})
    epochs = 0

    def kill(progress):
        nonlocal epochs
        epochs += 1
        if epochs == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cell(cell, RunFolder(tmp_path / "killed"), ExecutionSettings(tmp_path, checkpoint_seconds=0), kill)
    through = result(cell, tmp_path / "through", execution)
    assert same(through, result(cell, tmp_path / "killed", execution))
    assert [row["epochs"] for row in through["rounds"]] == [6, 6, 6]


def test_annealing_changes_what_a_round_reports_and_not_what_the_next_one_starts_from(warm, tmp_path, execution):
    plain, annealed = (
        result(*cells_of({**warm, "training": {**KEPT, "schedule": each}}), tmp_path / str(len(each)), execution)
        for each in (INFINITE, ANNEALED)
    )
    both = [[row for row in each["epochs"] if row["epoch"] <= 4] for each in (plain, annealed)]
    for one, other in zip(*both, strict=True):
        assert one["running_train_loss"] == other["running_train_loss"]
    assert [row["learning_rate"] for row in both[1]][6:] == [0.002] * 6
    assert [row["test_loss"] for row in plain["rounds"]] != [row["test_loss"] for row in annealed["rounds"]]
    assert same({**plain, "rounds": [], "epochs": []}, {**annealed, "rounds": [], "epochs": []})  # stored weights


def test_a_schedule_over_rounds_goes_on_after_a_first_phase(warm, tmp_path, execution):
    stream = {"name": "split"}
    rates = {}
    for epochs in (None, 3):
        raw = {**warm, "stream": {**stream, "first_phase_epochs": epochs}}
        training = {"optimizer": {"lr": 0.01}, "until": {"epochs": 4}, "schedule": ANNEALED}
        (cell,) = cells_of({**raw, "training": training})
        found = result(cell, tmp_path / "run", execution)
        rates[epochs] = [row["learning_rate"] for row in found["epochs"] if row["round"] == 1]
    schedule = cell.arm.training.schedule
    for epochs, expected in ((4, rates[None]), (3, rates[3])):
        assert expected[:4] == [schedule.learning_rate(0.01, epochs + k, 99) for k in range(4)]


@pytest.mark.parametrize("training", [{"optimizer_state": "keep"}, {"schedule": INFINITE}])
def test_random_init_that_gets_something_of_earlier_rounds_is_no_copy(warm, training):
    warm |= {"stream": {"name": "split"}, "strategies": {"random_init": {}}, "vary": {"stream.fraction": [0.3, 0.6]}}
    plain, more = (
        cells_of({**warm, "training": {"optimizer": {"lr": 0.01}, "until": {"epochs": 4}, **each}})
        for each in ({}, training)
    )
    assert [cell.copy_of is None for cell in plain] == [True, False]
    assert [cell.copy_of is None for cell in more] == [True, True]
    assert [cell.first_phase is None for cell in more] == ["optimizer_state" in training] * 2


def test_a_split_with_kept_state_trains_its_first_round_itself(warm, tmp_path, execution):
    raw = {**warm, "stream": {"name": "split"}, "training": KEPT}
    (kept,), (rebuilt,) = cells_of(raw), cells_of({**raw, "training": {**KEPT, "optimizer_state": "rebuild"}})
    found, other = (result(cell, tmp_path / "run", execution) for cell in (kept, rebuilt))
    first, second = ([row["train_loss"] for row in each["rounds"]] for each in (found, other))
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert [row["shared"] for row in found["rounds"]] == [False, False]


def test_rebuild_and_null_are_the_same_cell(warm):
    cells = [cells_of({**warm, "training": {"optimizer_state": each}})[0] for each in ("rebuild", None)]
    assert cells[0].digest == cells[1].digest == cells_of(warm | {"training": {}})[0].digest


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ({"name": "pretrain", "source": "digits"}, "training.optimizer_state: a first phase stores no state"),
        ({"name": "split", "first_phase_epochs": 2}, "'warm_start' trains its first round alone"),
    ],
)
def test_first_phases_hand_on_no_state(warm, stream, message):
    with pytest.raises(WarmstartError, match=message):
        cells_of({**copy.deepcopy(warm), "stream": stream, "training": KEPT})


def test_a_start_may_freeze_parameters_and_set_them_free_again(warm, tmp_path, execution):
    """With the state kept, the head of the second round moves otherwise; all of the third round trains."""
    raw = {**warm, "strategies": {"last_layer": {"rounds": 1}}, "training": KEPT}
    (kept,), (rebuilt,) = cells_of(raw), cells_of({**raw, "training": {**KEPT, "optimizer_state": "rebuild"}})
    found, other = (result(cell, tmp_path / "run", execution)["rounds"] for cell in (kept, rebuilt))
    assert [row["status"] for row in found] == ["finished"] * 3
    equal = [one["train_loss"] == two["train_loss"] for one, two in zip(found, other, strict=True)]
    assert equal == [True, False, False]
