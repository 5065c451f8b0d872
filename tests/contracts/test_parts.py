"""What holds for every registered part: it acts, survives an interruption, and captured steps do the same."""

import copy

import numpy as np
import pytest
import torch

from tests.acceleration.simulated_capture import SimulatedCapture
from warmstart_sim import models
from warmstart_sim.registry import PARTS
from warmstart_sim.seeding import scoped_torch_seed
from warmstart_sim.training.batches import DeviceSamples
from warmstart_sim.training.loop import RoundData, RoundTraining
from warmstart_sim.training.optimizers import state_tensors
from warmstart_sim.training.round_context import round_context
from warmstart_sim.training.settings import Training
from warmstart_sim.training.stepper import Stepper
from warmstart_sim.types import Round, RoundContext, Samples

# Options with which a part acts within six steps.
ACTIVE = {
    "adversarial": {"epsilon": 0.1},
    "augment": {"horizontal_flip": 0.5, "rotation": 10},
    "confidence_penalty": {"strength": 0.1},
    "continual_backprop": {"rho": 0.2, "maturity": 0},
    "ema_distillation": {"decay": 0.5},
    "hare_tortoise": {"every": 1},
    "l2": {"strength": 0.1},
    "l2_init": {"strength": 0.1},
    "parseval": {"strength": 0.1},
    "redo": {"every": 2, "tau": 0.9},
    "selective_reinitialization": {"every": 2, "share": 0.2},
    "self_distillation": {},
    "self_normalized_resets": {"every": 1, "percentile": 0.5},
    "soft_shrink_perturb": {"sigma": 0.01},
    "soft_weight_rescaling": {"lambda": 0.5},
    "upgd": {"sigma": 0.1},
}
COUNT = 24
DATA = Samples(
    np.random.default_rng(0).random((COUNT, 1, 6, 6), dtype=np.float32), np.random.default_rng(1).integers(0, 3, COUNT)
)
# Not Adam, whose steps are large where a gradient is nothing but rounding, as that of a bias before BatchNorm.
TRAINING = Training(optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9}, batch_size=8, until={"epochs": 2})


def network(seed: int) -> torch.nn.Module:
    with scoped_torch_seed(seed, "test"):
        return models.build("mlp", {"widths": (6, 5), "activation": "relu", "batch_norm": True}, (1, 6, 6), 3)


class Trained:
    """A round of two epochs of three steps, with one part."""

    def __init__(self, name: str | None, capture: SimulatedCapture | None = None) -> None:
        model = network(1)
        start = copy.deepcopy(model.state_dict())
        source = DeviceSamples(DATA, None, torch.device("cpu"))
        everything = np.arange(COUNT)
        context = round_context(
            model, models.layout(model), source, Round(1, everything, everything[12:]), seed=0,
            previous=network(2).state_dict(), fresh=network(3).state_dict(), initial=network(4).state_dict,
        )  # fmt: skip
        context = RoundContext(**{**vars(context), "start": start})
        schema = PARTS.schema(name) if name else None
        hooks = []
        if schema:
            options = schema.model_validate(ACTIVE[name])
            part = PARTS.get(name)(**{each: getattr(options, each) for each in schema.model_fields})
            hooks = [part(context.previous, context.fresh, context)]
        self.stepper = Stepper(model, TRAINING, capture)
        index = torch.arange(COUNT)
        data = RoundData(source, index, index[:0], source, index)
        self.training = RoundTraining(self.stepper, data, hooks, seed=0, round_index=1)

    def epochs(self, count: int) -> dict[str, torch.Tensor]:
        for _ in range(count):
            self.training.run_epoch()
        return {name: tensor.clone() for name, tensor in self.stepper.model.state_dict().items()}


PLAIN = Trained(None).epochs(2)


@pytest.mark.parametrize("name", PARTS.names())
class TestEveryPart:
    def test_it_has_an_effect_and_is_the_same_twice_and_after_an_interruption(self, name):
        whole = Trained(name).epochs(2)
        assert any(not torch.equal(whole[key], PLAIN[key]) for key in PLAIN)
        assert all(tensor.isfinite().all() for tensor in whole.values())
        interrupted = Trained(name)
        interrupted.epochs(1)
        resumed = Trained(name)
        resumed.training.load_state_dict(copy.deepcopy(interrupted.training.state_dict()))
        found = resumed.epochs(1)
        assert all(torch.equal(found[key], whole[key]) for key in whole)

    def test_the_optimiser_forgets_between_rounds(self, name):
        """Momentum that some arms keep and others lose would decide the comparison."""
        trained = Trained(name)
        trained.epochs(1)
        before = state_tensors(trained.stepper.optimizer)
        assert any(tensor.any() for tensor in before)
        trained.stepper.begin(trained.stepper.samples, trained.stepper.hooks)
        assert not any(tensor.any() for tensor in state_tensors(trained.stepper.optimizer))

    def test_captured_steps_do_the_same(self, name):
        captured = Trained(name, capture := SimulatedCapture())
        found, expected = captured.epochs(2), Trained(name).epochs(2)
        assert capture.replays > 0
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], rtol=1e-4, atol=1e-5)
