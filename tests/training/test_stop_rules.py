"""Stop rules against their definitions, fed with plain numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstart_sim.training.schedules import Schedule
from warmstart_sim.training.settings import Until
from warmstart_sim.training.stop_rules import StopRule


def ends(until: dict, accuracies: list[float], validation: list[float] | None = None, check=True) -> tuple[int, str]:
    """(epoch, status) at which a rule ends when running and train accuracy are `accuracies`."""
    rule = StopRule(Until(**until))
    for epoch, accuracy in enumerate(accuracies, start=1):
        measured = accuracy if check and rule.needs_train_accuracy and accuracy >= rule.threshold else None
        held_out = validation[epoch - 1] if validation else None
        if status := rule.after_epoch(epoch, 10 * epoch, accuracy, measured, held_out):
            return epoch, status
    raise AssertionError("the rule never ended the round")


def test_train_accuracy_is_reached_at_the_threshold_itself():
    assert ends({"train_accuracy": 0.99}, [0.5, 0.989, 0.99]) == (3, "converged")


def test_running_accuracy():
    assert ends({"running_accuracy": 0.9}, [0.8, 0.95]) == (2, "converged")


def test_epochs_and_steps_finish():
    assert ends({"epochs": 3}, [0.1] * 9) == (3, "finished")
    assert ends({"steps": 25}, [0.1] * 9) == (3, "finished")


def test_the_cap_ends_what_never_converges():
    assert ends({"train_accuracy": 0.99, "max_epochs": 4}, [0.5] * 9) == (4, "capped")


def test_convergence_in_the_last_epoch_counts():
    assert ends({"train_accuracy": 0.99, "max_epochs": 2}, [0.5, 1.0]) == (2, "converged")


def test_giving_up_needs_both_time_and_a_low_accuracy():
    until = {"train_accuracy": 0.99, "max_epochs": 50, "give_up": {"epochs": 3, "below": 0.3}}
    assert ends(until, [0.1] * 9) == (3, "gave_up")
    assert ends(until, [0.1, 0.1, 0.4, 1.0]) == (4, "converged")


@given(accuracies=st.lists(st.floats(0, 1), min_size=1, max_size=30), patience=st.integers(1, 5))
def test_a_plateau_is_patience_epochs_without_an_improvement(accuracies, patience):
    until = {"plateau": {"patience": patience, "min_delta": 0.01}, "max_epochs": len(accuracies)}
    best, stale, expected = 0.0, 0, (len(accuracies), "capped")
    for epoch, accuracy in enumerate(accuracies, start=1):
        best, stale = (accuracy, 0) if accuracy >= best + 0.01 else (best, stale + 1)
        if stale == patience:
            expected = (epoch, "converged")
            break
    assert ends(until, accuracies) == expected


@given(accuracies=st.lists(st.floats(0, 1), min_size=1, max_size=30), patience=st.integers(1, 5))
def test_validation_patience(accuracies, patience):
    until = {"validation_patience": patience, "max_epochs": len(accuracies)}
    expected = (len(accuracies), "capped")
    for epoch in range(1, len(accuracies) + 1):
        best = accuracies.index(max(accuracies[:epoch])) + 1
        if epoch - best == patience:
            expected = (epoch, "converged")
            break
    assert ends(until, [0.5] * len(accuracies), accuracies) == expected


def test_a_rule_continues_from_its_state_dict():
    rule, resumed = (StopRule(Until(plateau={"patience": 3})) for _ in range(2))
    for epoch in (1, 2):
        rule.after_epoch(epoch, epoch, 0.5, 0.5)
    resumed.load_state_dict(rule.state_dict())
    assert resumed == rule


def test_schedules_follow_their_formulas():
    assert [Schedule(name="step", every=2, gamma=0.1).learning_rate(1, e, 9) for e in range(5)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01]
    )
    cosine = [Schedule(name="cosine", min_lr=0.2).learning_rate(1, e, 4) for e in range(6)]
    plateau = Schedule(name="reduce_on_plateau", patience=20, gamma=0.5)
    assert [plateau.learning_rate(1, 99, 100, drops) for drops in range(4)] == [1, 0.5, 0.25, 0.125]
    assert cosine == pytest.approx([1, 0.2 + 0.8 * (2 + 2**0.5) / 4, 0.6, 0.2 + 0.8 * (2 - 2**0.5) / 4, 0.2, 0.2])
