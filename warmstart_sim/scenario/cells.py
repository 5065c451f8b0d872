"""A cell: one training history, and what identifies it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from warmstart_sim.registry import DATASETS, MODELS, PARTS, PROBES, STRATEGIES, STREAMS
from warmstart_sim.results.cell_folder import CellFolder
from warmstart_sim.results.store import RunFolder, drop_none
from warmstart_sim.scenario.component import Component, check_user_component, model_to_dict
from warmstart_sim.scenario.pretraining import Pretraining
from warmstart_sim.scenario.section_checks import FIRST_PHASE, Arm
from warmstart_sim.scenario.sections import DataSettings, Measure, MeasuredProbe

BEFORE = ("pretraining", "first_phase_epochs")  # settings of what comes before a cell's own rounds


@dataclass(frozen=True)
class Target:
    """The data set that is trained on after a first phase. It sets the model's input shape.

    Attributes:
        data: The data set.
        adapt: How the first phase's images are brought to the size of the target's.
        normalize: The target's normalisation if the first phase uses the same statistics, else None.
    """

    data: Component
    adapt: Literal["resize", "pad"] | None
    normalize: Literal["train", "cifar10", "imagenet", "half", "none"] | None

    def to_dict(self) -> dict[str, Any] | None:
        """The settings that change the first phase's numbers; None if it neither adapts nor shares statistics."""
        if self.adapt is None and self.normalize is None:
            return None
        return {"data": self.data.to_dict(), "adapt": self.adapt, "normalize": self.normalize}


@dataclass(frozen=True)
class Cell:
    """One training history: an arm, a seed and one combination of varied values.

    Attributes:
        scenario: The scenario's name.
        arm: The arm: start strategy, parts and training settings.
        seed: The seed.
        varied: The cell's value in each varied column of the tables; None for axes of other arms.
        data: The data set.
        data_settings: Validation fraction, normalisation, limits.
        stream: The stream, which generates the rounds.
        rounds: Maximum number of rounds; None for all.
        model: The model.
        measure: The probes.
        changes: Changes of the stream, such as windows and drift.
        pretraining: The pretraining before the first round; None for most streams.
        target: For a first phase on another data set, the data set that is trained on after it.
        first_phase_epochs: The cell starts from its first phase as it was after so many epochs; None for its end.
        kept_epochs: The epochs of the first phase from which cells of the run start, beside its end.
        copy_of: The cell of the run whose rounds after the first phase are the same, so that this one is not trained.
    """

    scenario: str
    arm: Arm
    seed: int
    varied: Mapping[str, Any]
    data: Component
    data_settings: DataSettings
    stream: Component
    rounds: int | None
    model: Component
    measure: Measure
    changes: tuple[Component, ...] = ()
    pretraining: Pretraining | None = None
    target: Target | None = None
    first_phase_epochs: int | None = None
    kept_epochs: tuple[int, ...] = ()
    copy_of: Cell | None = None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings that decide the cell's numbers, as plain values."""
        settings = {
            "data": {**model_to_dict(self.data_settings), **self.data.to_dict()},
            "stream": self.stream.to_dict(),
            "model": self.model.to_dict(),
            "training": model_to_dict(self.arm.training),
            "parts": [part.to_dict() for part in self.arm.parts],
            "each_epoch": [_probe_settings(each) for each in self.measure.each_epoch],
            "seed": self.seed,
            "rounds": self.rounds,
            "first_phase_epochs": self.first_phase_epochs,
            "label": self.arm.label,
            "start": self.arm.start.to_dict(),
        }
        if self.measure.each_round:
            settings["each_round"] = [_probe_settings(each) for each in self.measure.each_round]
        if self.changes:
            settings["changes"] = {change.name: dict(change.options) for change in self.changes}
        extra = {"pretraining": self.pretraining, "target": self.target}
        return settings | {name: written for name, each in extra.items() if each and (written := each.to_dict())}

    def step_kind(self, round_index: int) -> str:
        """A digest of what decides how long a step takes in a round: inputs, model, batch size and so on."""
        training = self.arm.training.in_round(round_index)
        keys = {"batch_size", "bucketing", "precision", "compile", "threads"}
        settings = {
            "data": self.data.to_dict(),
            "target": self.target and self.target.to_dict(),
            "model": self.model.to_dict(),
            "training": {key: value for key, value in model_to_dict(training).items() if key in keys},
            "optimizer": training.optimizer.name,
            "parts": [part.to_dict() for part in self.arm.parts],
        }
        return _digest(settings)

    @property
    def step_kinds(self) -> dict[str, int]:
        """The kinds of steps in the cell's rounds, each with the index of a round that makes such steps."""
        return {self.step_kind(index): index for index in (1, 0)}

    @cached_property
    def first_phase(self) -> Cell | None:
        """The cell whose weights this cell starts from; None for most streams. Cells with equal ones share it.

        For a `split` stream it is the first round, which does not depend on the start strategy of later rounds. For a
        `pretrain` stream it is one round on the source, without the arm's parts and training settings.
        """
        start = Component("random_init")
        if self.shares_first_round:
            first_round = self.arm.training.model_copy(update={"later_rounds": None})
            arm = replace(self.arm, label=FIRST_PHASE, start=start, training=first_round)
            stream = self._stream_without("later_rounds")
            return replace(self, arm=arm, varied={}, stream=stream, rounds=1, first_phase_epochs=None, copy_of=None)
        source = self.pretraining and self.pretraining.source
        if not source:
            return None
        normalize = None if source.own_normalization else self.data_settings.normalize
        return replace(
            self,
            arm=Arm(FIRST_PHASE, start, (), source.training),
            varied={},
            data=source.data,
            data_settings=source.settings,
            stream=Component("pretrain", {"fraction": source.fraction, "order": "random"}),
            rounds=1,
            changes=(),
            pretraining=None,
            first_phase_epochs=None,
            copy_of=None,
            target=Target(self.data, source.adapt, normalize),
        )

    @property
    def is_first_phase(self) -> bool:
        """Whether it is the first phase of other cells."""
        return self.arm.label == FIRST_PHASE

    @property
    def shares_first_round(self) -> bool:
        """Whether the first phase is this cell's own first round."""
        shared = STREAMS.has_trait(self.stream.name, "shared_first_round")
        return shared and not self.arm.needs_own_first_round and not self.is_first_phase

    @property
    def ignores_previous(self) -> bool:
        """Whether the rounds after a first phase are known to be the same whatever that was.

        Their numbers depend on neither its weights nor its samples. A user's own components may do anything.
        """
        if self.arm.training.in_round(1).carries_over:
            return False
        parts = ((PARTS, part.name) for part in self.arm.parts)
        probes = ((PROBES, each.probe.name) for each in (*self.measure.each_epoch, *self.measure.each_round))
        named = [(STRATEGIES, self.arm.start.name), *parts, *probes]
        # Parameters that never train keep the first phase's values in every start.
        trains_all = MODELS.has_trait(self.model.name, "trains_all")
        return trains_all and all(registry.has_trait(name, "ignores_previous") for registry, name in named)

    @cached_property
    def later_digest(self) -> str | None:
        """A digest of all settings that decide the rounds after the first phase, if nothing before them does."""
        if not self.ignores_previous or not (self.shares_first_round or self.pretraining):
            return None
        if self.changes:  # labels and inputs may depend on the round in which samples arrived
            return None
        if self.shares_first_round and self.rounds == 1:
            return None
        settings = {name: each for name, each in self.settings.items() if name not in BEFORE}
        settings["stream"] = self._stream_without("first_round").to_dict()
        settings["training"] = model_to_dict(self.arm.training.in_round(1))
        return _digest(settings)

    def _stream_without(self, which: Literal["first_round", "later_rounds"]) -> Component:
        """The stream without the options that concern only these rounds, as registered."""
        options = dict.fromkeys(STREAMS.details(self.stream.name).get(which, ()))
        return replace(self.stream, options={**self.stream.options, **options})

    @cached_property
    def digest(self) -> str:
        """A digest of all settings that decide the cell's numbers."""
        return _digest(self.settings)

    @cached_property
    def id(self) -> str:
        """The name of the cell's folder: arm, varied values, seed and digest."""
        words = [self.arm.label, *(f"{k.rpartition('.')[2]}={v}" for k, v in self.varied.items() if v is not None)]
        readable = re.sub(r"[^A-Za-z0-9=._-]+", "_", "-".join(words))[:80]
        return f"{readable}-seed{self.seed}-{self.digest}"

    @property
    def noise_id(self) -> str:
        """The name of its label noise, which cells with the same data, share of noise and seed have in common."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", self.data.name)
        digest = _digest({"data": self.settings["data"], "seed": self.seed})
        return f"{name}-{self.data_settings.label_noise or 0}-seed{self.seed}-{digest}"

    def folder(self, run: RunFolder) -> CellFolder:
        """The folder of its results."""
        return run.first_phase(self.id, self.kept_epochs) if self.is_first_phase else run.cell(self.id)


def _probe_settings(measured: MeasuredProbe) -> str | dict[str, Any]:
    options = {**measured.probe.options, **({"every": measured.every} if measured.every > 1 else {})}
    return {measured.probe.name: options} if options else measured.probe.name


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.blake2b(
        json.dumps(drop_none(settings), sort_keys=True, default=str).encode(), digest_size=5
    ).hexdigest()


def first_phases(cells: Iterable[Cell]) -> list[Cell]:
    """The first phases of the cells, without duplicates."""
    return list({phase.id: phase for cell in cells if (phase := cell.first_phase)}.values())


def with_kept_epochs(cells: Sequence[Cell]) -> list[Cell]:
    """The cells of a run, each with the epochs of its first phase from which any of them starts."""
    kept: dict[str, set[int]] = {}
    for cell in cells:
        if cell.first_phase and cell.first_phase_epochs:
            kept.setdefault(cell.first_phase.digest, set()).add(cell.first_phase_epochs)
    if not kept:
        return list(cells)
    return [
        replace(cell, kept_epochs=tuple(sorted(kept.get(cell.first_phase.digest, ())))) if cell.first_phase else cell
        for cell in cells
    ]


def with_copies(cells: Iterable[Cell]) -> list[Cell]:
    """The cells of a run, where those with the same rounds after their first phases are copies of the first of them."""
    trained: dict[str, Cell] = {}
    return [
        cell
        if cell.later_digest is None or (same := trained.setdefault(cell.later_digest, cell)) is cell
        else replace(cell, copy_of=same)
        for cell in cells
    ]


def trained_cells(cells: Iterable[Cell]) -> list[Cell]:
    """The first phases of the cells, and the cells that are not copies of others."""
    cells = list(cells)
    return [*first_phases(cells), *(cell for cell in cells if cell.copy_of is None)]


def import_user_modules(cells: Iterable[Cell], where: str) -> None:
    """Imports the user's objects that the cells name as `module:attribute`, so that errors come before training.

    Raises:
        WarmstartError: An object cannot be imported, or does not accept its options.
    """
    for cell in cells:
        source = cell.pretraining and cell.pretraining.source
        components = [(DATASETS, cell.data), (STREAMS, cell.stream), (MODELS, cell.model), (STRATEGIES, cell.arm.start)]
        components += [(PROBES, each.probe) for each in (*cell.measure.each_epoch, *cell.measure.each_round)]
        if source:
            components.append((DATASETS, source.data))
        for registry, component in components:
            if component.is_user_defined:
                check_user_component(component, registry, where)
