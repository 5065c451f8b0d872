"""Parses a scenario file into validated, immutable objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from warmstart_sim.registry import ANALYSES, DATASETS, MODELS, STRATEGIES, STREAMS
from warmstart_sim.scenario.component import Component
from warmstart_sim.scenario.grammar import shared_settings
from warmstart_sim.scenario.messages import RENAMED, scenario_error, unknown_key, validated
from warmstart_sim.scenario.pretraining import Pretraining
from warmstart_sim.scenario.section_checks import (
    NAME_OR_MAPPING,
    NEEDS_VALIDATION,
    Arm,
    SectionChecker,
)
from warmstart_sim.scenario.sections import (
    DataSettings,
    Header,
    Measure,
    PretrainSettings,
    ProbeSettings,
    StreamSettings,
)
from warmstart_sim.scenario.yaml_files import to_plain_values
from warmstart_sim.training.settings import ScenarioTraining, Settings


@dataclass(frozen=True)
class Scenario:
    """A validated scenario with one value of each axis.

    Attributes:
        header: Name, seeds, metric and other plain values.
        data: The data set and its own options.
        data_settings: The settings that all data sets have: validation fraction, normalisation, limits.
        stream: The stream, which generates the rounds.
        rounds: Maximum number of rounds; None for all.
        changes: Changes of the stream, such as windows and drift.
        pretraining: The pretraining before the first round; None for most streams.
        first_phase_epochs: Later rounds start from the first phase as it was after so many epochs; None for its end.
        model: The model.
        training: The training settings of arms without their own.
        arms: The arms, in the file's order, each with its parts.
        measure: The probes.
        analyze: The analyses that are made when all cells are complete.
    """

    header: Header
    data: Component
    data_settings: DataSettings
    stream: Component
    rounds: int | None
    changes: tuple[Component, ...]
    pretraining: Pretraining | None
    first_phase_epochs: int | None
    model: Component
    training: ScenarioTraining
    arms: tuple[Arm, ...]
    measure: Measure
    analyze: tuple[Component, ...]

    @property
    def metric(self) -> str:
        """The accuracy that the report compares."""
        held_out = self.data_settings.validation_fraction > 0
        return self.header.metric or ("validation_accuracy" if held_out else "test_accuracy")


SECTIONS = (*Header.model_fields, "data", "stream", "model", "training", "parts", "strategies", "vary")


def parse(raw: Mapping[str, Any], where: str) -> Scenario:
    """Validates a scenario, ignoring its `vary` axes.

    Args:
        raw: Content of the scenario file.
        where: Name of the scenario in error messages, usually the file.

    Raises:
        WarmstartError: The scenario is invalid. The message names the first wrong key, the value found and what is
            allowed.
    """
    for key in raw:
        if key in RENAMED:
            raise scenario_error(where, key, f"is called `{RENAMED[key]}` now")
        if key not in SECTIONS:
            raise scenario_error(where, key, unknown_key(key, SECTIONS))
    present = {key: to_plain_values(value) for key, value in raw.items() if value is not None}  # null: the default
    for section in ("data", "strategies"):
        if section not in present:
            raise scenario_error(where, section, "is missing")
    header = validated(Header, {key: present[key] for key in Header.model_fields if key in present}, where)
    if len(set(header.seeds)) < len(header.seeds):
        raise scenario_error(where, "seeds", f"{list(header.seeds)} has a seed twice; each must be given once")

    check = SectionChecker(where)
    data, data_settings = check.section(DATASETS, present["data"], "data", DataSettings)
    model_raw = present.get("model", "small_cnn")
    model, _ = check.section(MODELS, model_raw, "model", Settings)
    training_raw = check.mapping(present.get("training", {}), "training")
    training = check.training(training_raw, "training")
    stream_raw = check.mapping(present.get("stream", "static"), "stream", "name", NAME_OR_MAPPING)
    shared = cast(type[StreamSettings], shared_settings(stream_raw.get("name"), StreamSettings))
    source_raw = stream_raw.pop("source", None) if issubclass(shared, PretrainSettings) else None
    changes = check.changes(stream_raw.pop("changes", None))
    stream, stream_settings = check.section(STREAMS, stream_raw, "stream", shared)
    if changes and STREAMS.has_trait(stream.name, "model_chooses"):
        text = f"in stream {stream.name} the model chooses what arrives, which no change can know before; leave it out"
        raise scenario_error(where, "stream.changes", text)
    pretraining = None
    if isinstance(stream_settings, PretrainSettings):
        source = check.source(source_raw, data, data_settings, stream.options["fraction"], training_raw)
        if source is None and stream_settings.checkpoint is None:
            text = "is missing: the data set to pre-train on, or `checkpoint` for a file"
            raise scenario_error(where, "stream.source", text)
        if source is not None and stream_settings.checkpoint is not None:
            raise scenario_error(where, "stream.checkpoint", "takes the place of `source`; give one of the two")
        if stream_settings.weights is not None and stream_settings.checkpoint is None:
            raise scenario_error(where, "stream.weights", "says which weights of `checkpoint` to take; give both")
        pretraining = Pretraining(source, stream_settings.checkpoint, stream_settings.head, stream_settings.weights)
    arms_raw = check.mapping(present["strategies"], "strategies", allowed="a mapping of labels to options")
    if not arms_raw:
        raise scenario_error(where, "strategies", f"there is none; there are: {', '.join(STRATEGIES.names())}")
    parts_raw = check.shared_parts(present.get("parts", {}))
    arms = tuple(check.arm(label, value, training_raw, parts_raw, model_raw) for label, value in arms_raw.items())

    for arm in arms:
        check.hidden_units(arm, arm.model or model)
    if STREAMS.has_trait(stream.name, "shares_budget"):
        arms = tuple(
            replace(arm, training=check.stage_training(arm.training, stream.options, arm.stages)) for arm in arms
        )
        training = check.stage_training(training, stream.options)
    elif own := [arm.label for arm in arms if arm.stages]:
        raise scenario_error(where, f"strategies.{own[0]}.stages", f"is for `stream: stages`; it is {stream.name}")

    if pretraining and (keeping := [arm.label for arm in arms if arm.training.in_round(1).keeps_optimizer]):
        text = f"a first phase stores no state of its optimiser for strategy '{keeping[0]}'; leave the key out"
        raise scenario_error(where, "training.optimizer_state", text)
    epochs = getattr(stream_settings, "first_phase_epochs", None)
    if epochs is not None:
        check.first_phase_epochs(epochs, pretraining, arms)
    if not data_settings.validation_fraction:
        needs = NEEDS_VALIDATION.format("data")
        if header.metric == "validation_accuracy":
            raise scenario_error(where, "metric", f"validation_accuracy {needs}")
        for arm in arms:
            later = arm.training.later_rounds
            if setting := arm.training.validates_with or (later and later.validates_with):
                raise scenario_error(where, f"training.{setting}", f"{needs} (strategy '{arm.label}')")
    measure = Measure(
        check.probes(header.measure.each_epoch, "measure.each_epoch", ProbeSettings),
        check.probes(header.measure.each_round, "measure.each_round", Settings),
    )
    check.compared_rounds(measure, stream, changes)
    analyze = tuple(analysis for analysis, _ in check.listed(ANALYSES, header.analyze, "analyze", Settings))
    names = [analysis.name for analysis in analyze]
    if twice := [name for name in names if names.count(name) > 1]:
        raise scenario_error(where, "analyze", f"'{twice[0]}' is there twice; a run has one table of each analysis")
    return Scenario(
        header, data, data_settings, stream, stream_settings.rounds, changes, pretraining, epochs, model, training,
        arms, measure, analyze,
    )  # fmt: skip
