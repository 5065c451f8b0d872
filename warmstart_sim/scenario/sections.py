"""The keys of a scenario file that are plain settings, whatever data set, stream or model it names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, StringConstraints

from warmstart_sim.scenario.component import Component
from warmstart_sim.training.settings import Settings


class DataSettings(Settings):
    """The keys of `data:` that every data set has; the rest are the data set's own options.

    Attributes:
        validation_fraction: The share of the training samples held out at random, in [0, 1). Default 0.
        normalize: "train" (default): mean and deviation of the training set; "cifar10", "imagenet", "half": constants;
            "none".
        train_samples: At most this many training samples (after holding out), drawn at random. Default all.
        test_samples: At most this many test samples. Default all.
    """

    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    normalize: Literal["train", "cifar10", "imagenet", "half", "none"] = "train"
    train_samples: PositiveInt | None = None
    test_samples: PositiveInt | None = None


class StreamSettings(Settings):
    """The key of `stream:` that every stream has.

    Attributes:
        rounds: At most this many rounds. Default all of the stream's rounds.
    """

    rounds: PositiveInt | None = None


class PretrainSettings(StreamSettings):
    """The keys of `stream:` that a stream with a first phase elsewhere has, beside `source`.

    Attributes:
        checkpoint: A file of weights that takes the place of a first phase on `source`: a state dict that `torch.save`
            wrote, alone or under "state_dict" or "model". Default none.
        head: "keep" (default): the first phase's head, where it has the right size; otherwise, and with "fresh", that
            of random init with the same seed.
    """

    checkpoint: Path | None = None
    head: Literal["keep", "fresh"] = "keep"


class SourceSettings(Settings):
    """The keys of `stream.source`, beside the data set's own options, and `training`.

    Attributes:
        validation_fraction: As in `data`. Default: that of `data`.
        normalize: As in `data`, with the source's own statistics where it is "train"; or "target": the same numbers as
            for the target, one normalisation for both. Default: that of `data`.
        train_samples: As in `data`. Default all.
        test_samples: As in `data`. Default all.
        fraction: The share of the source that the first phase trains on, in (0, 1]; or "same": the target's fraction.
            Default 1.
        adapt: How images of another size become as large as the target's: "resize" (bilinear), or "pad": centred on
            black, or cropped at the centre. Grey images get three equal channels, colour ones become grey by
            luminance. Default none: then the shapes have to be the same.
    """

    validation_fraction: Annotated[float, Field(ge=0, lt=1)] | None = None
    normalize: Literal["train", "cifar10", "imagenet", "half", "none", "target"] | None = None
    train_samples: PositiveInt | None = None
    test_samples: PositiveInt | None = None
    fraction: Annotated[float, Field(gt=0, le=1)] | Literal["same"] = 1.0
    adapt: Literal["resize", "pad"] | None = None


class MeasureSettings(Settings):
    """The key `measure`: probes, each a name or a mapping of a name to options.

    Attributes:
        each_epoch: Measured after every epoch, or with the option `every: n` after every n-th.
        each_round: Measured at the start and at the end of every round.
    """

    each_epoch: tuple[str | dict[str, Any], ...] = ()
    each_round: tuple[str | dict[str, Any], ...] = ()


class ProbeSettings(Settings):
    """The option that every probe of `each_epoch` has.

    Attributes:
        every: Measured after every so many epochs. Default 1.
    """

    every: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True)
class MeasuredProbe:
    """A probe with its options, and after how many epochs it is measured."""

    probe: Component
    every: int = 1


@dataclass(frozen=True)
class Measure:
    """What a cell measures beside the standard columns.

    Attributes:
        each_epoch: Probes after epochs.
        each_round: Probes at the borders of rounds.
    """

    each_epoch: tuple[MeasuredProbe, ...] = ()
    each_round: tuple[MeasuredProbe, ...] = ()


class Header(Settings):
    """The keys of a scenario file that are plain values.

    Attributes:
        name: Names the run's folder.
        title: A line for the report's head.
        reproduces: The papers' tables and figures that this reproduces, such as A-F2.
        seeds: Default [0].
        measure: See `MeasureSettings`.
        metric: Which accuracy the report is about: "validation_accuracy" or "test_accuracy". Default: validation where
            something is held out, else test.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    title: str = ""
    reproduces: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Z]-[A-Z]+[0-9]*[a-z]?$")], ...] = ()
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    measure: MeasureSettings = MeasureSettings()
    metric: Literal["validation_accuracy", "test_accuracy"] | None = None
