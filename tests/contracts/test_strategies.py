"""What holds for every registered strategy; a new one is picked up by itself."""

import numpy as np
import pytest
import torch

from warmstart_sim import models, registry
from warmstart_sim.registry import STRATEGIES
from warmstart_sim.seeding import scoped_torch_seed, torch_generator
from warmstart_sim.training.model_functions import FunctionalModel
from warmstart_sim.types import RoundContext, Start

MODELS = [
    ("small_cnn", {}, (1, 8, 8)),
    ("mlp", {}, (3, 4, 4)),
    ("resnet18", {"width": 2}, (3, 8, 8)),
    ("bilstm", {"vocabulary_size": 20, "hidden": 4}, (6,)),
]


class Source:
    """Eight training samples."""

    def __init__(self, name, shape):
        tokens = registry.MODELS.has_trait(name, "tokens")
        self.inputs = torch.randint(1, 20, (8, *shape)) if tokens else torch.randn(8, *shape)

    def batch(self, index, width=None):
        return self.inputs[index], torch.zeros(len(index), dtype=torch.int64)


def states(name, options, shape, insert):
    drawn = []
    for seed in (1, 2):
        with scoped_torch_seed(seed, "test"):
            model = models.build(name, options, shape, 10)
            if insert:
                models.insert_normalization(model)
            source = Source(name, shape)
            model.train()(source.inputs)
        drawn.append(model.state_dict())
    return model, source, *drawn


def weights(start):
    return start.weights if isinstance(start, Start) else start


@pytest.mark.parametrize("strategy", STRATEGIES.names())
@pytest.mark.parametrize(("name", "options", "shape"), MODELS, ids=[m[0] for m in MODELS])
class TestEveryStrategy:
    def call(self, strategy, name, options, shape):
        inserts = STRATEGIES.has_trait(strategy, "inserts_normalization")
        model, source, previous, fresh = states(name, options, shape, inserts)
        context = RoundContext(
            1, models.layout(model), lambda purpose, index=1: torch_generator(0, purpose, index), previous, fresh,
            initial=lambda: fresh, train=np.arange(8), functions=FunctionalModel(model, source),
        )  # fmt: skip
        return model, previous, fresh, STRATEGIES.get(strategy)(), context

    def test_gives_a_complete_state_that_the_model_loads(self, strategy, name, options, shape):
        model, previous, fresh, start, context = self.call(strategy, name, options, shape)
        state = weights(start(previous, fresh, context))
        model.load_state_dict(state)
        assert all(state[key].shape == fresh[key].shape and state[key].dtype == fresh[key].dtype for key in fresh)

    def test_changes_neither_of_its_arguments(self, strategy, name, options, shape):
        _, previous, fresh, start, context = self.call(strategy, name, options, shape)
        before = [{key: tensor.clone() for key, tensor in state.items()} for state in (previous, fresh)]
        state = weights(start(previous, fresh, context))
        for copy, original in zip(before, (previous, fresh), strict=True):
            assert all(torch.equal(copy[key], original[key]) for key in copy)
        assert state.keys() == fresh.keys()

    def test_is_the_same_twice(self, strategy, name, options, shape):
        _, previous, fresh, start, context = self.call(strategy, name, options, shape)
        one, other = (weights(start(previous, fresh, context)) for _ in range(2))
        assert all(torch.equal(one[key], other[key]) for key in fresh)
