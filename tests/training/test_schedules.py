"""Schedules that warm up, decay, go on over rounds and anneal, and the optimiser's state that a round may keep."""

import copy
import math

import pytest
import torch
from pydantic import ValidationError

from tests.training.test_loop import fresh, training
from warmstart_sim.scenario.section_checks import SectionChecker
from warmstart_sim.training.loop import Carried, RoundTraining, train
from warmstart_sim.training.optimizers import keep_state, make_optimizer, state_by_name
from warmstart_sim.training.schedules import Schedule
from warmstart_sim.training.settings import Optimizer, Training

INFINITE = {"name": "infinite", "warmup": 2, "epochs": 6, "constant_lr": 0.002}
ANNEALED = {**INFINITE, "anneal": 2, "min_lr": 0.0002}
FULL_BATCH = {"batch_size": 64, "optimizer": {"name": "adam", "lr": 0.01}}


def same(a, b) -> bool:
    return all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def rates(training: RoundTraining) -> list[float]:
    return [row["learning_rate"] for row in train(training)]


@pytest.mark.parametrize("name", ["cosine", "infinite"])
def test_a_warm_up_is_followed_by_half_a_cosine_and_a_constant_rate(name):
    """Ibrahim et al. 2024: t / T_warmup, then half a cosine; here T_warmup = 4, and the epoch e has t = e + 1."""
    last = {"constant_lr": 0.2} if name == "infinite" else {"min_lr": 0.2}
    schedule = Schedule(name=name, warmup=3, epochs=7, **last)
    cosine = [0.2 + 0.8 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(5)]
    expected = [1 / 4, 2 / 4, 3 / 4, *cosine, 0.2, 0.2]
    assert [schedule.learning_rate(1.0, epoch, 99) for epoch in range(10)] == pytest.approx(expected)
    assert schedule.spans_rounds == (name == "infinite")


def test_a_cosine_warms_up_again_in_each_round_and_an_infinite_schedule_goes_on():
    again, on = {"name": "cosine", "warmup": 2, "epochs": 6}, INFINITE
    model, before = fresh("mlp"), Carried(epochs=4)
    expected = [Schedule(**again).learning_rate(0.01, epoch, 3) for epoch in range(3)]
    assert rates(training(model, {"optimizer": {"lr": 0.01}, "schedule": again}, carried=before)) == expected
    expected = [Schedule(**on).learning_rate(0.01, epoch, 3) for epoch in (4, 5, 6)]
    later = training(model, {"optimizer": {"lr": 0.01}, "schedule": on}, carried=before)
    assert rates(later) == expected
    assert expected[-1] == 0.002 != expected[0]
    assert later.carried(keep_optimizer=False) == Carried(epochs=7)


def test_annealing_adds_epochs_whose_weights_are_reported_while_the_next_round_starts_from_those_before():
    settings = {"optimizer": {"lr": 0.01}, "until": {"steps": 10}}  # of four in an epoch: the third is cut short
    plain, annealed = (training(fresh(), {**settings, "schedule": each}) for each in (INFINITE, ANNEALED))
    train(plain)
    rows = train(annealed)
    before, last = rows[2]["learning_rate"], [row["learning_rate"] for row in rows[3:]]
    reached = Schedule(**INFINITE).learning_rate(0.01, 3, 99)
    assert last == pytest.approx([reached * (0.0002 / reached) ** (k / 2) for k in (1, 2)])
    assert before != last[0]
    assert [row["steps"] for row in rows] == [4, 8, 10, 14, 18]
    outcome = annealed.outcome
    assert (outcome.status, outcome.epochs) == ("finished", 5)
    assert plain.outcome.next_weights is None
    assert same(outcome.next_weights, plain.model.state_dict())
    assert not same(outcome.next_weights, annealed.model.state_dict())
    assert annealed.carried(keep_optimizer=False) == plain.carried(keep_optimizer=False) == Carried(epochs=3)
    kept, expected = (each.carried(keep_optimizer=True).optimizer for each in (annealed, plain))
    assert all(same(kept[name], state) for name, state in expected.items())


@pytest.mark.parametrize("epochs", [2, 3, 4])
def test_a_round_that_is_interrupted_before_or_within_its_annealing_resumes_exactly(epochs):
    settings = {"optimizer": {"lr": 0.01}, "schedule": ANNEALED}
    through = training(fresh(), settings)
    train(through)
    first = training(fresh(), settings)
    for _ in range(epochs):
        first.run_epoch()
    resumed = training(fresh(), settings)
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    train(resumed)
    assert same(resumed.model.state_dict(), through.model.state_dict())
    assert same(resumed.outcome.next_weights, through.outcome.next_weights)
    assert resumed.outcome.status == through.outcome.status == "finished"


@pytest.mark.parametrize("optimizer", [{"name": "adam", "lr": 0.01}, {"name": "sgd", "lr": 0.01, "momentum": 0.9}])
def test_with_kept_state_two_rounds_of_full_batches_are_one_long_round(optimizer):
    settings = {**FULL_BATCH, "optimizer": optimizer}
    long = training(fresh("mlp"), {**settings, "until": {"epochs": 6}})
    train(long)
    first = training(fresh("mlp"), settings)
    train(first)
    carried, weights = first.carried(keep_optimizer=True), copy.deepcopy(first.model.state_dict())
    ends = {}
    for kept in (True, False):
        model = fresh("mlp")
        model.load_state_dict(weights)
        second = training(model, settings, carried=carried if kept else Carried(epochs=3))
        train(second)
        ends[kept] = torch.cat([tensor.flatten() for tensor in model.state_dict().values()])
    expected = torch.cat([tensor.flatten() for tensor in long.model.state_dict().values()])
    assert torch.allclose(ends[True], expected, atol=2e-5)  # an epoch's order decides the last bits of its mean
    assert not torch.allclose(ends[False], expected, atol=1e-3)


def test_a_kept_state_belongs_to_parameters_by_name_and_one_that_did_not_train_gets_a_new_state():
    model = fresh("mlp")
    body = frozenset(name for name, _ in model.named_parameters() if not name.startswith("head"))
    train(first := training(model, {"until": {"epochs": 1}}, trainable=body))
    kept = first.carried(keep_optimizer=True).optimizer
    assert kept.keys() == body
    model.requires_grad_(True)
    # Two groups in another order than the parameters': what decays, and biases.
    optimizer = make_optimizer(model, Optimizer(weight_decay=0.1, decay_biases=False))
    keep_state(model, optimizer, kept)
    named = state_by_name(model, optimizer)
    assert named.keys() == dict(model.named_parameters()).keys()
    for name, state in named.items():
        assert state["exp_avg"].shape == model.get_parameter(name).shape
        assert same(state, kept[name]) if name in body else not any(value.any() for value in state.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "infinite", "epochs": 3}, "an infinite schedule needs `constant_lr`"),
        ({"name": "infinite", "constant_lr": 0.1}, "an infinite schedule needs `epochs`"),
        ({**INFINITE, "anneal": 2}, "min_lr is 0.0; `anneal` needs one above 0 and below constant_lr"),
        ({**INFINITE, "min_lr": 0.001}, "min_lr is the last rate of `anneal`; give both"),
        ({**INFINITE, "warmup": 6}, "warmup is 6; it must be below `epochs`, 6"),
        ({"name": "cosine", "anneal": 2}, "anneal is an option of the infinite schedule, not of cosine"),
        ({"name": "step", "every": 2, "warmup": 2}, "warmup is an option of the constant, cosine or infinite schedule"),
    ],
)
def test_messages_name_the_option(options, message):
    with pytest.raises(ValidationError, match=message.replace("(", r"\(")):
        Schedule(**options)


def test_the_constant_rate_is_not_above_the_rate_that_decays_to_it():
    with pytest.raises(ValidationError, match=r"constant_lr is 0.002, above optimizer.lr, 0.001"):
        Training(schedule=INFINITE)


def test_another_optimiser_cannot_go_on_with_the_state():
    settings = {"optimizer": {"name": "adam"}, "optimizer_state": "keep"}
    later = {"later_rounds": {"optimizer": {"name": "sgd", "lr": 0.1}}}
    check = SectionChecker("file")
    assert check.training({**settings, "later_rounds": {"optimizer": {"name": "adamw"}}}, "training").later_rounds
    with pytest.raises(Exception, match="optimizer_state: sgd cannot go on with the state of adam"):
        check.training({**settings, **later}, "training")


def test_rebuild_is_the_default():
    assert Training(optimizer_state="rebuild") == Training()
