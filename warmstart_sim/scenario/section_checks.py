"""Validates the sections of a scenario file: what each names, its options, and the settings of arms and rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from warmstart_sim.errors import nearest, unknown
from warmstart_sim.registry import ANALYSES, CHANGES, DATASETS, MODELS, PARTS, PROBES, STRATEGIES, STREAMS, Registry
from warmstart_sim.scenario.changed_data import changes_test_data
from warmstart_sim.scenario.component import Component, from_object, model_to_dict
from warmstart_sim.scenario.grammar import arm_settings, choice, source_settings
from warmstart_sim.scenario.messages import scenario_error, validated
from warmstart_sim.scenario.pretraining import Pretraining, PretrainingSource
from warmstart_sim.scenario.sections import DataSettings, Measure, MeasuredProbe
from warmstart_sim.scenario.yaml_files import merge, quoted
from warmstart_sim.training.settings import ScenarioTraining, Settings, Training, Until

S = TypeVar("S", bound=Settings)
PREPARES = "prepares_first_round"  # the trait of strategies that also act before the first round
FIRST_PHASE = "first phase"  # the label of first phases, which no arm can have
# Registries whose components are not named by the key "name".
NAME_KEYS = {STRATEGIES.kind: "start", PROBES.kind: "", ANALYSES.kind: ""}
NAME_OR_MAPPING = "a name, or a mapping"
NEEDS_VALIDATION = "needs validation data; set {}.validation_fraction above 0"


@dataclass(frozen=True)
class Arm:
    """One of the compared ways to train: a start strategy, parts, training settings, and perhaps a model of its own."""

    label: str
    start: Component
    parts: tuple[Component, ...]
    training: ScenarioTraining
    stages: int | None = None  # of its own, in a stream of stages
    model: Component | None = None  # of its own

    @property
    def needs_own_first_round(self) -> bool:
        """Whether it cannot start from a first phase that other arms share.

        Its strategy prepares the first round, or later rounds need the optimiser's state, which is not stored.
        """
        return STRATEGIES.has_trait(self.start.name, PREPARES) or self.training.in_round(1).keeps_optimizer

    def stream(self, shared: Component) -> Component:
        """The stream of this arm, which may have stages of its own."""
        return replace(shared, options={**shared.options, "stages": self.stages}) if self.stages else shared


class SectionChecker:
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
            component = Component(name, options)
            if isinstance(registry.get(name), type):
                try:
                    component.make(registry)
                except ValidationError as error:  # each option is valid, but not together with another
                    text = error.errors()[0]["msg"].removeprefix("Value error, ")
                    raise scenario_error(self.where, key, text) from None
            return component, cast(S, shared.model_construct(**kept))
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

    def stage_training(
        self, training: ScenarioTraining, options: Mapping[str, Any], own: int | None = None
    ) -> ScenarioTraining:
        """The training of each stage, which ends after floor(N / T) of the budget's N epochs or steps if there is one.

        Args:
            training: The training settings in the file.
            options: The stream's: `stages`, which is T, and `epochs` or `steps`.
            own: An arm's own T.
        """
        budget = {rule: options[rule] for rule in ("epochs", "steps") if options[rule] is not None}
        if not budget:
            return training
        if len(budget) > 1:
            raise scenario_error(self.where, "stream.steps", "the budget has `epochs` already; give one of the two")
        ((rule, total),) = budget.items()
        stages = own or options["stages"]
        share = total // stages
        if share == 0:
            text = f"found {total}; for {stages} stages it must be at least {stages}"
            raise scenario_error(self.where, f"stream.{rule}", text)
        until = Until.model_validate({rule: share, "max_epochs": share})
        written = {until, self.stage_training(ScenarioTraining(), options).until} if own else {until}
        if "until" in training.model_fields_set and training.until not in written:
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
            if own := [arm.label for arm in arms if arm.needs_own_first_round]:
                text = f"strategy '{own[0]}' trains its first round alone, and does not share it; leave the key out"
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

    def compared_rounds(self, measure: Measure, stream: Component, changes: Sequence[Component]) -> None:
        """Checks that probes that compare rounds are measured by round, where rounds have test data of their own."""
        own = STREAMS.has_trait(stream.name, "own_test_data") or stream.is_user_defined or changes_test_data(changes)
        for table in ("each_epoch", "each_round"):
            for index, each in enumerate(getattr(measure, table)):
                place = f"measure.{table}[{index}].{each.probe.name}"
                if not PROBES.has_trait(each.probe.name, "compares_rounds"):
                    continue
                if table == "each_epoch":
                    raise scenario_error(self.where, place, "compares rounds; list it under `each_round`")
                if not own:
                    raise scenario_error(
                        self.where, place, "needs a stream whose rounds have test data of their own, such as "
                        f"class_incremental or one with drift in `changes`; it is {stream.name}",
                    )  # fmt: skip

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

    def changes(self, value: Any) -> tuple[Component, ...]:
        """Validates `stream.changes`; null leaves out one of a base's."""
        found = []
        key = "stream.changes"
        raw = self.mapping({} if value is None else value, key, allowed="a mapping of changes to their options")
        for name, options in raw.items():
            if name not in CHANGES.names():
                raise scenario_error(self.where, f"{key}.{name}", unknown(CHANGES.kind, name, CHANGES.names()))
            if options is not None:
                place = f"{key}.{name}"
                checked = validated(CHANGES.schema(name), self.mapping(options, place), self.where, place)
                found.append(Component(name, model_to_dict(checked)))
        return tuple(found)

    def shared_parts(self, value: Any) -> dict[str, Any]:
        """Validates the names in `parts`, the parts of all arms; their options are validated with each arm."""
        raw = self.mapping(value, "parts", allowed="a mapping of parts to their options")
        for name in raw:
            if name not in PARTS.names():
                raise scenario_error(self.where, f"parts.{name}", unknown("part", name, PARTS.names()))
        return raw

    def arm(self, label: str, value: Any, training: Mapping[str, Any], parts: Mapping[str, Any], model: Any) -> Arm:
        """Validates an arm; `training`, `parts` and `model` are the scenario's; null leaves out one of these parts."""
        key = f"strategies.{label}"
        if not label or "/" in label or label == FIRST_PHASE:
            why = "first phases are called so" if label == FIRST_PHASE else "a label is text without a slash"
            raise scenario_error(self.where, "strategies", f"'{label}' cannot be a label: {why}")
        raw = self.mapping({} if value is None else value, key, "start", "a strategy's name, or a mapping")
        if "start" not in raw and label not in STRATEGIES.names():
            hint = f"unknown strategy '{label}'{nearest(label, STRATEGIES.names())}"
            names = ", ".join(STRATEGIES.names())
            raise scenario_error(self.where, key, f"{hint} (a label of your own needs `start:` with one of {names})")
        start, own_training, own_model = raw.pop("start", label), raw.pop("training", None), raw.pop("model", None)
        own = {name: f"{key}.{name}" for name in PARTS.names() if name in raw}
        given = {name: raw.pop(name) if name in own else parts.get(name) for name in PARTS.names()}
        made = tuple(
            self.part(name, options, own.get(name, f"parts.{name}"))
            for name, options in given.items()
            if options is not None
        )
        component, settings = self.component(STRATEGIES, start, raw, key, arm_settings())
        own_stages = getattr(settings, "stages", None)
        trained = self.own_training(own_training, training, key)
        return Arm(label, component, made, trained, own_stages, self.own_model(own_model, model, f"{key}.model"))

    def hidden_units(self, arm: Arm, model: Component) -> None:
        """Checks that parts that reset hidden units meet a model that has some, as far as is known unbuilt."""
        lacking = MODELS.details(model.name).get("without_hidden_units", {})  # by the values of its options
        options = [f" with {key}: {value}" for key, value in lacking.items() if model.options.get(key) == value]
        if not options and not MODELS.has_trait(model.name, "no_hidden_units"):
            return
        for part in arm.parts:
            if PARTS.details(part.name).get("changes") == "hidden units":
                having = f"model {model.name}{options[0] if options else ''}"
                text = f"needs hidden units that it can reset, and {having} has none; leave one of the two out"
                raise scenario_error(self.where, f"strategies.{arm.label}.{part.name}", text)

    def own_model(self, value: Any, shared: Any, key: str) -> Component | None:
        """Validates `model` of an arm: another model, or options that are merged over those of the scenario's."""
        if value is None:
            return None
        below = self.mapping(shared, "model", "name", NAME_OR_MAPPING)
        own = self.mapping(value, key, "name", NAME_OR_MAPPING)
        merged = {**below, **own} if own.get("name", below.get("name")) == below.get("name") else own
        return self.section(MODELS, merged, key, Settings)[0]

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
        later = validated(Training, merged, self.where, later_key)
        names = found.optimizer.name, later.optimizer.name
        if later.keeps_optimizer and "sgd" in names and len(set(names)) > 1:
            text = f"{names[1]} cannot go on with the state of {names[0]}, the first round's; set it to rebuild"
            raise scenario_error(self.where, f"{later_key}.optimizer_state", text)
        return found.model_copy(update={"later_rounds": later})

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
