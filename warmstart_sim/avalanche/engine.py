"""A cell's rounds trained by Avalanche's own loop, with our plugins: the second opinion on our engine."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from torch import nn
from torch.utils.data import DataLoader, default_collate

from warmstart_sim import models
from warmstart_sim.avalanche.benchmarks import as_avalanche
from warmstart_sim.avalanche.convergence import ConvergencePlugin, NotConverged
from warmstart_sim.avalanche.metrics import TrainSeconds
from warmstart_sim.avalanche.start import StrategyPlugin
from warmstart_sim.avalanche.stopwatch import Stopwatch
from warmstart_sim.errors import WarmstartError
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.settings import OnEpoch, TrainingOutcome
from warmstart_sim.registry import MODELS, STRATEGIES
from warmstart_sim.scenario import Cell
from warmstart_sim.seeding import derive_seed
from warmstart_sim.training.batches import batch_sizes, epoch_order
from warmstart_sim.training.coroutine import run_to_end
from warmstart_sim.training.loop import Epoch
from warmstart_sim.training.stepper import make_optimizer
from warmstart_sim.types import Round, StateDict


def check_supported(cells: Iterable[Cell]) -> None:
    """Makes sure that Avalanche's loop can train these cells: starts and stop rules, and nothing beyond.

    Raises:
        WarmstartError: It cannot.
    """
    for cell in cells:
        training = cell.arm.training
        texts = not cell.model.is_own and MODELS.has_trait(cell.model.name, "tokens")
        beyond = [
            *(f"part '{part.name}'" for part in cell.arm.parts),
            *(["precision: bf16"] if training.precision == "bf16" else []),
            *(["bucketing"] if training.bucketing else []),
            *([f"model '{cell.model.name}', which takes texts"] if texts else []),
        ]
        if beyond:
            raise WarmstartError(
                f"--engine avalanche: strategy '{cell.arm.label}' has {beyond[0]}; that engine does starts and stop "
                "rules only, so leave it out or use our own engine"
            )


def avalanche_engine(trainer: CellTrainer) -> Callable[[Round, StateDict | None, OnEpoch], TrainingOutcome]:
    """What trains a cell's rounds, one at each call, with one Avalanche strategy for all of them.

    Args:
        trainer: The cell's data and model.
    """
    check_supported([trainer.cell])
    return _Rounds(trainer).train


class _Rounds:
    """Avalanche's Naive with our plugins, and the cell's rounds as its experiences."""

    def __init__(self, trainer: CellTrainer) -> None:
        self._lab = trainer
        settings = trainer.cell.arm.training
        data = as_avalanche(trainer.train_samples)
        benchmark = benchmark_from_datasets(train=[data.subset(each.train) for each in trainer.rounds])
        self._experiences = {
            round_.index: experience for round_, experience in zip(trainer.rounds, benchmark.train_stream, strict=True)
        }
        self._stopping = ConvergencePlugin(
            until=settings.until, validation=data.subset(trainer.validation_indices.cpu())
        )
        self._seconds = TrainSeconds()
        plugins = [
            StrategyPlugin(
                trainer.cell.arm.start.make(STRATEGIES), seed=trainer.cell.seed, model_factory=trainer.new_model
            ),
            _Draws(trainer),
            self._stopping,
        ]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No loggers specified")
            evaluator = EvaluationPlugin(self._seconds, loggers=[])
        self._strategy = Naive(
            model=trainer.model, optimizer=make_optimizer(trainer.model, settings.optimizer),
            criterion=nn.CrossEntropyLoss(), train_mb_size=settings.batch_size, device=trainer.device,
            plugins=plugins, evaluator=evaluator,
        )  # fmt: skip

    def train(self, round_: Round, previous: StateDict | None, on_epoch: OnEpoch) -> TrainingOutcome:
        """Trains one round to its end, in the lab's model."""
        trainer, strategy = self._lab, self._strategy
        trainer.model.load_state_dict(previous or trainer.fresh_weights(round_.index))
        strategy.clock.train_exp_counter = round_.index  # rounds before it may have been trained elsewhere
        records = _Records(trainer, round_, self._stopping, self._seconds, on_epoch)
        strategy.plugins.append(records)  # behind the metrics, whose numbers it takes
        cuda = [trainer.device] if trainer.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=cuda), warnings.catch_warnings():
                warnings.simplefilter("ignore", NotConverged)  # the tables say it
                strategy.train(self._experiences[round_.index], eval_streams=[])
        finally:
            strategy.plugins.remove(records)
        stopping = self._stopping
        assert stopping.status is not None
        return _Trained(stopping.status, stopping.epochs, stopping.steps, stopping.samples_seen, stopping.best_state)


@dataclass(frozen=True)
class _Trained:
    """See `TrainingOutcome`."""

    status: Any
    epochs: int
    steps: int
    samples_seen: int
    best_state: dict[str, torch.Tensor] | None
    capture_seconds: float = 0.0


class _Draws(SupervisedPlugin):
    """Batch order, learning rate and dropout as in our engine: all drawn from the cell's seed, round and epoch."""

    def __init__(self, trainer: CellTrainer) -> None:
        super().__init__()
        self._lab = trainer
        self._channels_last = models.takes_channels_last(trainer.model)

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Puts the epoch's own loader in the place of Avalanche's."""
        settings, seed = self._lab.cell.arm.training, self._lab.cell.seed
        place = strategy.clock.train_exp_counter, strategy.clock.train_exp_epochs
        dataset = strategy.adapted_dataset
        order = epoch_order(len(dataset), seed, *place).split(batch_sizes(len(dataset), settings.batch_size))
        strategy.dataloader = DataLoader(
            dataset, batch_sampler=[positions.tolist() for positions in order], collate_fn=self._collated,
            generator=torch.Generator(),  # a loader draws a seed for its workers, of which there are none
        )  # fmt: skip
        rate = settings.schedule.learning_rate(settings.optimizer.lr, place[1], settings.until.cap)
        for group in strategy.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(derive_seed(seed, "dropout", *place))

    def _collated(self, samples: list[Any]) -> Any:
        inputs, labels = default_collate(samples)
        return inputs.contiguous(memory_format=torch.channels_last) if self._channels_last else inputs, labels


class _Records(SupervisedPlugin):
    """Tells what happened in each epoch, as our engine does."""

    def __init__(
        self, trainer: CellTrainer, round_: Round, stopping: ConvergencePlugin, seconds: TrainSeconds, on_epoch: OnEpoch
    ) -> None:
        super().__init__()
        self._lab, self._round, self._stopping, self._on_epoch = trainer, round_, stopping, on_epoch
        self._seconds, self._told = seconds, 0.0

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Comes after all other plugins."""
        stopping, train_seconds = self._stopping, self._seconds.result() - self._told
        self._told += train_seconds
        watch = Stopwatch(strategy.device)
        found: dict[str, Any] = {}
        if "accuracy" in self._lab.cell.each_epoch:
            found = run_to_end(self._lab.evaluate(self._round))
        epoch = Epoch(
            stopping.epochs, stopping.steps, strategy.optimizer.param_groups[0]["lr"], stopping.running_accuracy,
            stopping.running_loss, found.get("train_accuracy", stopping.train_accuracy),
            found.get("validation_accuracy", stopping.validation_accuracy), found.get("test_accuracy"),
            train_seconds, stopping.criterion_seconds, watch.seconds(),
        )  # fmt: skip
        self._on_epoch(epoch, stopping.status is not None)
