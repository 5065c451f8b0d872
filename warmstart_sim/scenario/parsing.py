"""Parses a scenario file into validated, immutable objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from warmstart_sim.errors import nearest, unknown
from warmstart_sim.registry import ANALYSES, DATASETS, MODELS, PARTS, PROBES, STRATEGIES, STREAMS, Registry
from warmstart_sim.scenario.component import Component, from_object, model_to_dict
from warmstart_sim.scenario.grammar import arm_settings, choice, shared_settings, source_settings
from warmstart_sim.scenario.messages import RENAMED, scenario_error, unknown_key, validated
from warmstart_sim.scenario.pretraining import Pretraining, PretrainingSource
from warmstart_sim.scenario.sections import (
    DataSettings,
    Header,
    Measure,
    MeasuredProbe,
    PretrainSettings,
    ProbeSettings,
    StreamSettings,
)
from warmstart_sim.scenario.yaml_files import merge, quoted, to_plain_values
from warmstart_sim.training.settings import ScenarioTraining, Settings, Training, Until

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Arm:
    """One of the compared ways to train: a start strategy, parts and training settings."""

    label: str
    start: Component
    parts: tuple[Component, ...]
    training: ScenarioTraining


@dataclass(frozen=True)
class Scenario:
    """A validated scenario with one value of each axis.

    Attributes:
        header: Name, seeds, metric and other plain values.
        data: The data set and its own options.
        data_settings: The settings that all data sets have: validation fraction, normalisation, limits.
        stream: The stream, which generates the rounds.
        rounds: Maximum number of rounds; None for all.
        pretraining: The pretraining before the first round; None for most streams.
        first_phase_epochs: Later rounds start from the first phase as it was after so many epochs; None for its end.
        model: The model.
        training: The training settings of arms without their own.
        arms: The arms, in the file's order.
        measure: The probes.
        analyze: The analyses that are made when all cells are complete.
    """

    header: Header
    data: Component
    data_settings: DataSettings
    stream: Component
    rounds: int | None
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


PREPARES = "prepares_first_round"  # the trait of strategies that also act before the first round
FIRST_PHASE = "first phase"  # the label of first phases, which no arm can have
# Registries whose components are not named by the key "name".
NAME_KEYS = {STRATEGIES.kind: "start", PROBES.kind: "", ANALYSES.kind: ""}
NAME_OR_MAPPING = "a name, or a mapping"
NEEDS_VALIDATION = "needs validation data; set {}.validation_fraction above 0"
SECTIONS = (*Header.model_fields, "data", "stream", "model", "training", "strategies", "vary")


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

    check = _Checker(where)
    data, data_settings = check.section(DATASETS, present["data"], "data", DataSettings)
    model, _ = check.section(MODELS, present.get("model", "small_cnn"), "model", Settings)
    training_raw = check.mapping(present.get("training", {}), "training")
    training = check.training(training_raw, "training")
    stream_raw = check.mapping(present.get("stream", "static"), "stream", "name", NAME_OR_MAPPING)
    shared = cast(type[StreamSettings], shared_settings(stream_raw.get("name"), StreamSettings))
    source_raw = stream_raw.pop("source", None) if issubclass(shared, PretrainSettings) else None
    stream, stream_settings = check.section(STREAMS, stream_raw, "stream", shared)
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
    arms = tuple(check.arm(label, value, training_raw) for label, value in arms_raw.items())

    if STREAMS.has_trait(stream.name, "shares_budget"):
        arms = tuple(replace(arm, training=check.stage_training(arm.training, stream.options)) for arm in arms)
        training = check.stage_training(training, stream.options)

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
    analyze = tuple(analysis for analysis, _ in check.listed(ANALYSES, header.analyze, "analyze", Settings))
    names = [analysis.name for analysis in analyze]
    if twice := [name for name in names if names.count(name) > 1]:
        raise scenario_error(where, "analyze", f"'{twice[0]}' is there twice; a run has one table of each analysis")
    return Scenario(
        header, data, data_settings, stream, stream_settings.rounds, pretraining, epochs, model, training, arms,
        measure, analyze,
    )  # fmt: skip


class _Checker:
    """Validates the sections of one file; error messages name the file and the key."""

    def __init__(self, where: str) -> None:
        self.where = where

    def mapping(self, value: Any, key: str, shorthand: str = "", allowed: str = "a mapping") -> dict[str, Any]:
        """A copy of a mapping; with the shorthand "name", `model: mlp` stands for `model: {name: mlp}`."""
        if shorthand and not isinstance(value, dict) and (isinstance(value, str) or callable(value)):
            return {shorthand: value}
        if not isinstance(value, dict):
            raise scenario_error(self.where, key, f"found {quoted(value)} (allowed: {allowed})")
        return dict(value)

    def section(self, registry: Registry[Any], value: Any, key: str, shared: type[S]) -> tuple[Component, S]:
        """Validates a section that names a component; `component` describes arguments and result."""
        raw = self.mapping(value, key, "name", NAME_OR_MAPPING)
        name = raw.pop("name", None)
        if name is None:
            raise scenario_error(self.where, f"{key}.name", f"is missing (there are: {', '.join(registry.names())})")
        return self.component(registry, name, raw, key, shared)

    def component(
        self, registry: Registry[Any], name: Any, raw: dict[str, Any], key: str, shared: type[S]
    ) -> tuple[Component, S]:
        """Validates a component's name, its options and the settings that all components of its kind have.

        Args:
            registry: The registry of its kind.
            name: Its name, or a user's object.
            raw: The options and shared settings in the file.
            key: The key of the component in the file.
            shared: The settings that all components of this kind have.

        Returns:
            The component and the shared settings.
        """
        name_key = NAME_KEYS.get(registry.kind, "name")
        if isinstance(name, str) and name in registry.names():
            named = {name_key: name} if name_key else {}
            checked = validated(choice(registry, name, shared, name_key), {**named, **raw}, self.where, key)
            written, own = model_to_dict(checked), registry.schema(name).model_fields
            options = {info.alias or field: written[info.alias or field] for field, info in own.items()}
            kept = {field: getattr(checked, field) for field in shared.model_fields if field not in own}
            return Component(name, options), cast(S, shared.model_construct(**kept))
        common = {field: raw.pop(field) for field in shared.model_fields if field in raw}
        settings = validated(shared, common, self.where, key)
        place = f"{key}.{name_key}".rstrip(".")
        if not isinstance(name, str):
            try:
                return from_object(registry, name, raw), settings
            except TypeError:
                text = f"found {quoted(name)} (allowed: the name of a {registry.kind})"
                raise scenario_error(self.where, place, text) from None
        if ":" not in name:
            raise scenario_error(self.where, place, unknown(registry.kind, name, registry.names()))
        # User-defined components are imported when the run starts, so that checking a file executes no user code.
        # In a stored scenario, a Python object has a name with a digest, which cannot be imported.
        if "#" not in name and not all(part.isidentifier() for part in name.replace(":", ".", 1).split(".")):
            text = f"found '{name}'; your own {registry.kind} is named module:attribute"
            raise scenario_error(self.where, place, text)
        return Component(name, raw), settings

    def source(
        self, value: Any, target: Component, target_settings: DataSettings, fraction: float, training: Mapping[str, Any]
    ) -> PretrainingSource | None:
        """Validates `stream.source`, the data set of a first phase. Settings that it leaves out are the target's.

        Args:
            value: The value in the file.
            target: The data set of `data`.
            target_settings: The target's settings.
            fraction: The fraction of the target that is trained on.
            training: The scenario's `training`.
        """
        if value is None:
            return None
        key = "stream.source"
        raw = self.mapping(value, key, "name", NAME_OR_MAPPING)
        own_training = raw.pop("training", None)
        data, settings = self.section(DATASETS, raw, key, source_settings())
        if data == target:
            text = f"'{data.name}' is the target itself; `stream: split` trains on a part of it first"
            raise scenario_error(self.where, key, text)
        chosen = {name: value for name, value in settings if name in DataSettings.model_fields and value is not None}
        inherited = {name: getattr(target_settings, name) for name in ("validation_fraction", "normalize")}
        shares_target = chosen.get("normalize") == "target"
        if shares_target:
            del chosen["normalize"]
        data_settings = DataSettings(**{**inherited, **chosen})
        without_later = {name: value for name, value in training.items() if name != "later_rounds"}
        trained = self.own_training(own_training, without_later, key)
        if trained.later_rounds:
            text = "the first phase is one round; `training.later_rounds` is for the rounds after it"
            raise scenario_error(self.where, f"{key}.training.later_rounds", text)
        if trained.validates_with and not data_settings.validation_fraction:
            raise scenario_error(self.where, f"{key}.training.{trained.validates_with}", NEEDS_VALIDATION.format(key))
        share = fraction if settings.fraction == "same" else settings.fraction
        return PretrainingSource(data, data_settings, not shares_target, share, settings.adapt, trained)

    def stage_training(self, training: ScenarioTraining, options: Mapping[str, Any]) -> ScenarioTraining:
        """The training of each stage, which ends after floor(N / T) of the budget's N epochs or steps if there is one.

        Args:
            training: The training settings in the file.
            options: The stream's: `stages`, which is T, and `epochs` or `steps`.
        """
        budget = {rule: options[rule] for rule in ("epochs", "steps") if options[rule] is not None}
        if not budget:
            return training
        if len(budget) > 1:
            raise scenario_error(self.where, "stream.steps", "the budget has `epochs` already; give one of the two")
        ((rule, total),) = budget.items()
        share = total // options["stages"]
        if share == 0:
            text = f"found {total}; for {options['stages']} stages it must be at least {options['stages']}"
            raise scenario_error(self.where, f"stream.{rule}", text)
        until = Until.model_validate({rule: share, "max_epochs": share})
        if "until" in training.model_fields_set and training.until != until:
            text = f"each stage ends after {share} {rule}, by `stream.{rule}`; leave one of the two out"
            raise scenario_error(self.where, "training.until", text)
        later = training.later_rounds and training.later_rounds.model_copy(update={"until": until})
        return training.model_copy(update={"until": until, "later_rounds": later})

    def first_phase_epochs(self, epochs: int, pretraining: Pretraining | None, arms: Sequence[Arm]) -> None:
        """Checks that there is a first phase that can last so many epochs."""
        key = "stream.first_phase_epochs"
        if pretraining and pretraining.source is None:
            raise scenario_error(self.where, key, "there is no first phase: a `checkpoint` takes its place")
        if pretraining and pretraining.source:
            rules = [("stream.source.training.until", pretraining.source.training.until)]
        else:
            rules = [(f"training.until of strategy '{arm.label}'", arm.training.until) for arm in arms]
            if prepared := [arm.label for arm in arms if STRATEGIES.has_trait(arm.start.name, PREPARES)]:
                text = f"strategy '{prepared[0]}' prepares its first round, and does not share it; leave the key out"
                raise scenario_error(self.where, key, text)
        for place, until in rules:
            if epochs > until.cap:
                text = f"found {epochs}; the first phase has at most {until.cap} epochs, by {place}"
                raise scenario_error(self.where, key, text)

    def probes(
        self, items: Sequence[str | dict[str, Any]], key: str, shared: type[Settings]
    ) -> tuple[MeasuredProbe, ...]:
        """Validates a list of `measure`."""
        found = self.listed(PROBES, items, key, shared)
        return tuple(MeasuredProbe(probe, getattr(settings, "every", 1)) for probe, settings in found)

    def listed(
        self, registry: Registry[Any], items: Sequence[str | dict[str, Any]], key: str, shared: type[S]
    ) -> list[tuple[Component, S]]:
        """Validates a list: each item is a component's name, or a mapping of one name to its options."""
        found = []
        for index, item in enumerate(items):
            place = f"{key}[{index}]"
            if isinstance(item, dict) and len(item) != 1:
                raise scenario_error(self.where, place, "expected a name, or one name with its options")
            ((name, options),) = ({item: {}} if isinstance(item, str) else item).items()
            if ":" not in name and name not in registry.names():
                raise scenario_error(self.where, place, unknown(registry.kind, name, registry.names()))
            raw = self.mapping({} if options is None else options, f"{place}.{name}")
            found.append(self.component(registry, name, raw, f"{place}.{name}", shared))
        return found

    def arm(self, label: str, value: Any, training: Mapping[str, Any]) -> Arm:
        """Validates an arm; `training` is the scenario's."""
        key = f"strategies.{label}"
        if not label or "/" in label or label == FIRST_PHASE:
            why = "first phases are called so" if label == FIRST_PHASE else "a label is text without a slash"
            raise scenario_error(self.where, "strategies", f"'{label}' cannot be a label: {why}")
        raw = self.mapping({} if value is None else value, key, "start", "a strategy's name, or a mapping")
        if "start" not in raw and label not in STRATEGIES.names():
            hint = f"unknown strategy '{label}'{nearest(label, STRATEGIES.names())}"
            names = ", ".join(STRATEGIES.names())
            raise scenario_error(self.where, key, f"{hint} (a label of your own needs `start:` with one of {names})")
        start, own_training = raw.pop("start", label), raw.pop("training", None)
        parts = tuple(self.part(name, raw.pop(name), f"{key}.{name}") for name in PARTS.names() if name in raw)
        component, _ = self.component(STRATEGIES, start, raw, key, arm_settings())
        return Arm(label, component, parts, self.own_training(own_training, training, key))

    def part(self, name: str, value: Any, key: str) -> Component:
        """Validates the options of an arm's part."""
        if type(value) is PARTS.get(name):
            return from_object(PARTS, value, {})
        if isinstance(value, list):  # augment: [random_crop, rotation] uses their default strength
            value = dict.fromkeys(map(str, value), True)
        options = self.mapping(value, key, allowed="a list of names, or a mapping")
        return Component(name, model_to_dict(validated(PARTS.schema(name), options, self.where, key)))

    def training(self, value: Mapping[str, Any], key: str) -> ScenarioTraining:
        """Validates training settings; those of `later_rounds` are merged over the others as over a `base`."""
        first = {name: each for name, each in value.items() if name != "later_rounds"}
        found = validated(ScenarioTraining, first, self.where, key)
        if value.get("later_rounds") is None:
            return found
        later_key = f"{key}.later_rounds"
        merged = merge(first, self.mapping(value["later_rounds"], later_key), ("training",))
        return found.model_copy(update={"later_rounds": validated(Training, merged, self.where, later_key)})

    def own_training(self, value: Any, shared: Mapping[str, Any], key: str) -> ScenarioTraining:
        """Validates `training` of an arm or a source, merged over the scenario's.

        Each setting replaces the scenario's, so `until: {epochs: 50}` drops the scenario's other stop rules. An
        `optimizer` or `schedule` without a `name` changes only the options that it gives, and so does `later_rounds`.
        """
        own = {} if value is None else self.mapping(value, f"{key}.training")
        merged = {**shared, **own}
        for name in ("optimizer", "schedule"):
            below, above = shared.get(name), own.get(name)
            if isinstance(below, dict) and isinstance(above, dict) and "name" not in above:
                merged[name] = {**below, **above}
        below, above = shared.get("later_rounds"), own.get("later_rounds")
        if isinstance(below, dict) and isinstance(above, dict):
            merged["later_rounds"] = merge(below, above, ("training",))
        return self.training(merged, f"{key}.training" if own else "training")
