"""Trains a cell's rounds with Avalanche's own loop and our plugins: a second opinion on our loop."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
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
from warmstart_sim.experiment.cell_trainer import CellTrainer, set_up_torch
from warmstart_sim.experiment.engine import RoundListener, RoundTrainer
from warmstart_sim.registry import MODELS, PARTS, STRATEGIES, STREAMS
from warmstart_sim.scenario import Cell
from warmstart_sim.scenario.changed_data import changes_test_data
from warmstart_sim.seeding import derive_seed
from warmstart_sim.training.batches import batch_sizes, epoch_order
from warmstart_sim.training.coroutine import run_to_end
from warmstart_sim.training.loop import EpochRow, TrainingOutcome
from warmstart_sim.training.optimizers import make_optimizer
from warmstart_sim.types import Round, StateDict


def check_supported(cells: Iterable[Cell]) -> None:
    """Makes sure that Avalanche's loop can train these cells: strategies, stop rules and plain loss terms, only.

    Raises:
        WarmstartError: It cannot.
    """
    for cell in cells:
        training, later = cell.arm.training.in_round(0), cell.arm.training.in_round(1)
        texts = not cell.model.is_user_defined and MODELS.has_trait(cell.model.name, "tokens")
        beyond = [
            *(["samples that the model chooses"] if STREAMS.has_trait(cell.stream.name, "model_chooses") else []),
            *(["drift in `stream.changes`"] if changes_test_data(cell.changes) else []),
            *(f"part '{part.name}'" for part in cell.arm.parts if not PARTS.has_trait(part.name, "plain_loss_term")),
            *(["precision: bf16"] if "bf16" in (training.precision, later.precision) else []),
            *(["compile: true"] if training.compile or later.compile else []),
            *(["bucketing"] if training.bucketing or later.bucketing else []),
            *(["report: best_validation"] if training.report or later.report else []),
            *(["schedule reduce_on_plateau"] if training.schedule.patience or later.schedule.patience else []),
            *([f"schedule {later.schedule.name}"] if later.schedule.spans_rounds else []),
            *(["optimizer_state: keep"] if later.keeps_optimizer else []),
            *([f"model '{cell.model.name}', which takes texts"] if texts else []),
        ]
        if beyond:
            raise WarmstartError(
                f"--engine avalanche: strategy '{cell.arm.label}' has {beyond[0]}; that engine does starts, stop "
                "rules and loss terms only, so leave it out or use our own engine"
            )


def avalanche_engine(trainer: CellTrainer) -> RoundTrainer:
    """Trains a cell's rounds, one at each call, with one Avalanche strategy for all of them.

    Args:
        trainer: The cell's data and model.
    """
    check_supported([trainer.cell])
    return _Rounds(trainer).train


class _Rounds:
    """Avalanche's Naive with our plugins; the cell's rounds are its experiences."""

    def __init__(self, trainer: CellTrainer) -> None:
        self._trainer = trainer
        self._settings = settings = trainer.stepper.settings
        data = as_avalanche(trainer.train_samples)
        benchmark = benchmark_from_datasets(train=[data.subset(each.train) for each in trainer.rounds])
        rounds = {round_.index: round_ for round_ in trainer.rounds}
        self._experiences = dict(zip(rounds, benchmark.train_stream, strict=True))
        self._stopping = ConvergencePlugin(
            until=settings.until,
            validation=data.subset(trainer.samples_of("validation", trainer.rounds[0])[1].cpu()),
        )
        self._seconds = TrainSeconds()
        self._starting = StrategyPlugin(
            trainer.cell.arm.start.make(STRATEGIES),
            parts=[part.make(PARTS) for part in trainer.cell.arm.parts],
            seed=trainer.cell.seed,
            model_factory=trainer.new_model,
            make_context=lambda number, previous: trainer.round_context(rounds[number], previous),
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No loggers specified")
            evaluator = EvaluationPlugin(self._seconds, loggers=[])
        self._strategy = Naive(
            model=trainer.model, optimizer=make_optimizer(trainer.model, settings.optimizer),
            criterion=nn.CrossEntropyLoss(), train_mb_size=settings.batch_size, device=trainer.device,
            plugins=[self._starting, _SameDraws(trainer), self._stopping], evaluator=evaluator,
        )  # fmt: skip

    def train(self, round_: Round, previous: StateDict | None, listener: RoundListener) -> TrainingOutcome:
        """Trains one round to its end, in the trainer's model."""
        trainer, strategy, stopping = self._trainer, self._strategy, self._stopping
        settings = trainer.cell.arm.training.in_round(round_.index)
        if settings != self._settings:
            self._settings, stopping.until = settings, settings.until
            set_up_torch(trainer.device, settings, trainer.execution.deterministic)
            strategy.optimizer = make_optimizer(trainer.model, settings.optimizer)
        trainer.model.load_state_dict(previous or trainer.fresh_weights(round_.index))
        strategy.clock.train_exp_counter = round_.index  # rounds before it may have been trained elsewhere
        reports = _Reports(trainer, round_, self._starting, stopping, self._seconds, listener)
        strategy.plugins.append(reports)  # behind the metrics, whose numbers it reads
        cuda = [trainer.device] if trainer.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=cuda), warnings.catch_warnings():
                warnings.simplefilter("ignore", NotConverged)  # the tables show it
                strategy.train(self._experiences[round_.index], eval_streams=[])
        finally:
            strategy.plugins.remove(reports)
        assert stopping.status is not None
        return TrainingOutcome(
            stopping.status,
            stopping.epochs,
            stopping.steps,
            stopping.samples_seen,
            stopping.best_state,
            stopping.best_epoch,
        )


class _SameDraws(SupervisedPlugin):
    """Batch order, learning rate and dropout as in our loop: all drawn from the cell's seed, round and epoch."""

    def __init__(self, trainer: CellTrainer) -> None:
        super().__init__()
        self._trainer = trainer
        self._channels_last = models.takes_channels_last(trainer.model)

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Replaces Avalanche's loader by the epoch's own."""
        place = strategy.clock.train_exp_counter, strategy.clock.train_exp_epochs
        cell = self._trainer.cell
        settings, seed = cell.arm.training.in_round(place[0]), cell.seed
        dataset = strategy.adapted_dataset
        order = epoch_order(len(dataset), seed, *place).split(batch_sizes(len(dataset), settings.batch_size))
        strategy.dataloader = DataLoader(
            dataset, batch_sampler=[positions.tolist() for positions in order], collate_fn=self._collated,
            generator=torch.Generator(),  # a loader draws a seed for workers, even if it has none
        )  # fmt: skip
        rate = settings.schedule.learning_rate(settings.optimizer.lr, place[1], settings.until.cap)
        for group in strategy.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(derive_seed(seed, "dropout", *place))

    def _collated(self, samples: list[Any]) -> Any:
        inputs, labels = default_collate(samples)
        return inputs.contiguous(memory_format=torch.channels_last) if self._channels_last else inputs, labels


class _Reports(SupervisedPlugin):
    """Reports start and epochs of a round to the listener, as our loop does."""

    def __init__(
        self,
        trainer: CellTrainer,
        round_: Round,
        starting: StrategyPlugin,
        stopping: ConvergencePlugin,
        seconds: TrainSeconds,
        listener: RoundListener,
    ) -> None:
        super().__init__()
        self._trainer, self._round, self._listener = trainer, round_, listener
        self._starting, self._stopping, self._seconds = starting, stopping, seconds
        self._reported_seconds = 0.0

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Runs after the strategy plugin."""
        assert self._starting.context is not None
        self._listener.started(self._starting.context)

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Runs after all other plugins."""
        stopping, train_seconds = self._stopping, self._seconds.result() - self._reported_seconds
        self._reported_seconds += train_seconds
        watch = Stopwatch(strategy.device)
        measured: dict[str, Any] = {}
        if self._trainer.measures_accuracy:
            measured = run_to_end(self._trainer.evaluate(self._round))
        row: EpochRow = {
            "epoch": stopping.epochs,
            "steps": stopping.steps,
            "learning_rate": strategy.optimizer.param_groups[0]["lr"],
            "running_train_accuracy": stopping.running_accuracy,
            "running_train_loss": stopping.running_loss,
            "train_accuracy": measured.get("train_accuracy", stopping.train_accuracy),
            "validation_accuracy": measured.get("validation_accuracy", stopping.validation_accuracy),
            "test_accuracy": measured.get("test_accuracy"),
            "train_seconds": train_seconds,
            "criterion_seconds": stopping.criterion_seconds,
            "evaluation_seconds": watch.seconds(),
        }
        self._listener.epoch_ended(row, last=stopping.status is not None)
