"""The settings in a scenario file that do not depend on the data set, stream or model it names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveInt, StringConstraints

from warmstart_sim.registry import PROBES
from warmstart_sim.scenario.component import Component
from warmstart_sim.training.settings import Settings

# 0 is the same as leaving the key out, also for a cell's digest.
NoiseShare = Annotated[float, Field(ge=0, lt=1), AfterValidator(lambda share: share or None)]


class DataSettings(Settings):
    """The keys of `data:` that all data sets have; other keys are the data set's own options.

    Attributes:
        validation_fraction: The fraction of the training samples held out at random, in [0, 1). Default 0.
        normalize: "train" (default): mean and deviation of the training set; "cifar10", "imagenet", "half": constants;
            "none".
        train_samples: At most this many training samples (after holding out), drawn at random. Default all.
        test_samples: At most this many test samples. Default all.
        label_noise: The fraction of the training samples whose labels are replaced by random ones, drawn uniformly from
            all classes, in [0, 1). Validation and test labels stay as they are. Default 0.
    """

    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    normalize: Literal["train", "cifar10", "imagenet", "half", "none"] = "train"
    train_samples: PositiveInt | None = None
    test_samples: PositiveInt | None = None
    label_noise: NoiseShare | None = None


class StreamSettings(Settings):
    """The keys of `stream:` that all streams have.

    Attributes:
        rounds: Maximum number of rounds. Default all of the stream's rounds.
        changes: Changes of the stream, such as windows and drift: a mapping of their names to their options. Default
            none.
    """

    rounds: PositiveInt | None = None
    changes: dict[str, Any] | None = None


class FirstPhaseSettings(StreamSettings):
    """The keys of `stream:` for streams with a first phase that cells share.

    Attributes:
        first_phase_epochs: Start from the weights that the first phase had after so many epochs. Default its last ones.
    """

    first_phase_epochs: PositiveInt | None = None


class PretrainSettings(FirstPhaseSettings):
    """The keys of `stream:`, beside `source`, for streams with a first phase on another data set.

    Attributes:
        checkpoint: A file of weights to load instead of training on `source`: state dicts saved by `torch.save`, alone
            or among other things, or safetensors. Default none.
        weights: Which weights of the file to take, by the keys that lead to them, such as "state_dict_ema". Default:
            those that fit the model best; where several do, the first that are not a running mean.
        head: "keep" (default): keep the first phase's head if its size fits; otherwise, and with "fresh", initialise
            the head as random init with the same seed does.
    """

    checkpoint: Path | None = None
    weights: str | None = None
    head: Literal["keep", "fresh"] = "keep"


class SourceSettings(Settings):
    """The keys of `stream.source`, beside the data set's own options and `training`.

    Attributes:
        validation_fraction: As in `data`. Default: that of `data`.
        normalize: As in `data`, where "train" means the source's own statistics; or "target": the target's statistics.
            Default: that of `data`.
        train_samples: As in `data`. Default all.
        test_samples: As in `data`. Default all.
        label_noise: As in `data`. Default 0.
        fraction: The fraction of the source that the first phase trains on, in (0, 1]; or "same": the target's
            fraction. Default 1.
        adapt: How images are brought to the size of the target's: "resize" (bilinear), or "pad": centred on black, or
            cropped at the centre. Grey images get three equal channels; colour images are converted to grey by
            luminance. Default none: the shapes must be equal.
    """

    validation_fraction: Annotated[float, Field(ge=0, lt=1)] | None = None
    normalize: Literal["train", "cifar10", "imagenet", "half", "none", "target"] | None = None
    train_samples: PositiveInt | None = None
    test_samples: PositiveInt | None = None
    label_noise: NoiseShare | None = None
    fraction: Annotated[float, Field(gt=0, le=1)] | Literal["same"] = 1.0
    adapt: Literal["resize", "pad"] | None = None


class Draws(Settings):
    """An axis of `vary` whose values are combinations of settings, drawn at random.

    Attributes:
        draws: How many combinations are drawn; all are different.
        seed: The seed of the draws, which is not that of the cells. Default 0.
        from_: Dotted keys of settings, and the values from which each is drawn, all equally likely.
    """

    draws: PositiveInt
    seed: Annotated[int, Field(ge=0)] = 0
    from_: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1, alias="from")]


class MeasureSettings(Settings):
    """The key `measure`: lists of probes, each a name or a mapping of one name to its options.

    Attributes:
        each_epoch: Probes measured after every epoch, or after every n-th epoch with the option `every: n`.
        each_round: Probes measured at the start and at the end of every round.
    """

    each_epoch: tuple[str | dict[str, Any], ...] = ()
    each_round: tuple[str | dict[str, Any], ...] = ()


class ProbeSettings(Settings):
    """The option that all probes of `each_epoch` have.

    Attributes:
        every: Number of epochs between measurements. Default 1.
    """

    every: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True)
class MeasuredProbe:
    """A probe with its options, and the number of epochs between measurements."""

    probe: Component
    every: int = 1

    @property
    def by_loop(self) -> bool:
        """Whether the training loop measures it: accuracies, which its stop rule and every round's row need too."""
        return PROBES.has_trait(self.probe.name, "measured_by_loop")


@dataclass(frozen=True)
class Measure:
    """The probes of a cell, which add columns to the standard ones.

    Attributes:
        each_epoch: Probes after every epoch, or every n-th.
        each_round: Probes at the start and at the end of rounds.
    """

    each_epoch: tuple[MeasuredProbe, ...] = ()
    each_round: tuple[MeasuredProbe, ...] = ()


class SelectSettings(Settings):
    """The key `select`: axes of `vary` whose best value is chosen for each arm, instead of being compared.

    Attributes:
        over: The keys of the axes. Each arm gets its own choice, for each combination of the other axes.
        by: What the choice maximises: "validation_accuracy" (default and only choice), the mean over seeds after the
            last round.
    """

    over: Annotated[tuple[str, ...], Field(min_length=1)]
    by: Literal["validation_accuracy"] = "validation_accuracy"


class Header(Settings):
    """The keys of a scenario file that are plain values.

    Attributes:
        name: Names the run's folder.
        title: The report's title.
        reproduces: The papers' tables and figures that this reproduces, such as A-F2.
        seeds: Each arm is trained once with each seed. Default [0].
        measure: See `MeasureSettings`.
        analyze: Analyses made when all cells are complete: each a name, or a mapping of one name to its options.
        claims: Sentences that the report checks, such as "warm_start below random_init": see `results.claims`.
        metric: The accuracy that the report compares: "validation_accuracy" or "test_accuracy". Default: validation
            accuracy if there are validation data, else test accuracy.
        rehearsal: Whether every cell is reduced and runs on stand-in data, as `--rehearse` does. Default false.
        select: See `SelectSettings`.
        figures: Figures that the report draws in front of the standard ones: see `results.figure_settings`.
        standard_figures: Whether the report draws the standard figures as well. Default true.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    title: str = ""
    reproduces: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Z]-[A-Z]+[0-9]*[a-z]?$")], ...] = ()
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    measure: MeasureSettings = MeasureSettings()
    analyze: tuple[str | dict[str, Any], ...] = ()
    claims: tuple[str, ...] = ()
    metric: Literal["validation_accuracy", "test_accuracy"] | None = None
    rehearsal: bool = False
    select: SelectSettings | None = None
    figures: tuple[dict[str, Any], ...] = ()
    standard_figures: bool = True
