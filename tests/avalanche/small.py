"""Shared by the tests of the Avalanche adapters: points, small models, strategies, and a plugin that records calls."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import AvalancheDataset, as_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from torch import nn
from torch.utils.data import TensorDataset

State = dict[str, torch.Tensor]


def dataset(inputs: Any, labels: Any, transform_groups: Any = None) -> AvalancheDataset:
    """Converts arrays to an Avalanche data set; transforms act on inputs."""
    labels = torch.as_tensor(labels)
    tensors = TensorDataset(torch.as_tensor(inputs, dtype=torch.float32), labels)
    tensors.targets = labels.tolist()
    return as_classification_dataset(tensors, transform_groups=transform_groups)


def points(count: int, seed: int = 0, transform_groups: Any = None) -> AvalancheDataset:
    """Points of three slightly overlapping classes in five dimensions."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    centres = 2 * torch.eye(3, 5)
    return dataset(centres[labels] + torch.randn(count, 5, generator=generator), labels, transform_groups)


def stream(*sizes: int) -> Any:
    """A train stream with one experience of points per size."""
    return benchmark_from_datasets(train=[points(size, seed) for seed, size in enumerate(sizes)]).train_stream


def network(seed: int = 0, dropout: float = 0.0) -> nn.Sequential:
    """A network with BatchNorm, whose buffers are part of the state."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


def state(model: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: State, other: State, names: Iterable[str] | None = None) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in names or one)


def quiet(*metrics: Any) -> EvaluationPlugin:
    """An evaluator without loggers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return EvaluationPlugin(*metrics, loggers=[])


def strategy(
    model: nn.Module,
    *plugins: Any,
    kind: Callable[..., Any] = Naive,
    optimizer: torch.optim.Optimizer | None = None,
    evaluator: Any = None,
    **options: Any,
) -> Any:
    """An Avalanche strategy, by default Naive with SGD and batches of 16."""
    return kind(
        model=model, optimizer=optimizer or torch.optim.SGD(model.parameters(), lr=0.1), plugins=[*plugins],
        evaluator=evaluator or quiet(), criterion=nn.CrossEntropyLoss(),
        **{"train_mb_size": 16, "eval_mb_size": 16, **options},
    )  # fmt: skip


def train(strategy: Any, experiences: Sequence[Any], seed: int = 0) -> None:
    """Trains one experience at a time, in an order determined by the seed."""
    torch.manual_seed(seed)
    for experience in experiences:
        strategy.train(experience, eval_streams=[])


class Watch(SupervisedPlugin):
    """Records what an Avalanche strategy does. Its position among the plugins determines what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.began: list[State] = []  # the state before each experience, when this plugin is called
        self.ended: list[State] = []
        self.optimizers: list[Any] = []
        self.generators: list[torch.Tensor] = []
        self.batches: list[list[list[tuple[torch.Tensor, torch.Tensor]]]] = []  # by experience and epoch
        self.announced: list[int] = []  # calls of before_training_epoch in each experience
        self.epochs: list[int] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.began.append(state(strategy.model))
        self.optimizers.append(copy.deepcopy(strategy.optimizer.state_dict()))
        self.generators.append(torch.get_rng_state())
        self.batches.append([])
        self.announced.append(0)
        self.epochs.append(0)

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self.announced[-1] += 1
        self.batches[-1].append([])

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        self.batches[-1][-1].append((strategy.mb_x.clone(), strategy.mb_y.clone()))

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self.epochs[-1] += 1

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.ended.append(state(strategy.model))

    @property
    def steps(self) -> list[int]:
        """The number of steps in each experience."""
        return [sum(map(len, epochs)) for epochs in self.batches]
