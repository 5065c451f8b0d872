"""What is asked: the data and the order in which they arrive, the model, and how it trains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from warmstart_sim.datasets.image_folder import SUFFIXES as IMAGE_SUFFIXES
from warmstart_sim.datasets.text_folder import SEPARATORS as TABLE_SEPARATORS
from warmstart_sim.errors import WarmstartError, nearest, unknown
from warmstart_sim.registry import DATASETS
from warmstart_sim.scenario.sections import DataSettings
from warmstart_sim.scenario.yaml_files import load, set_values

TRAINING = {"until": {"train_accuracy": 0.99, "max_epochs": 100}}
IMAGE_SIZE = 32  # of an image folder, unless `--set data.size` says otherwise
SECTIONS = ("data", "model", "training", "parts")
WITH_TIMES = ("image_folder", "text_folder", "arrays")


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        name: A short name of the data, for folders and titles.
        data: The data set with its options, as in a scenario file.
        data_settings: The settings that all data sets have, such as `normalize`.
        model: The model with its options.
        training: As in a scenario file.
        parts: Parts of all arms, such as `augment`.
        order: Seeds the random order of arrival; None if the data have an order of their own.
    """

    name: str
    data: Mapping[str, Any]
    model: Mapping[str, Any]
    data_settings: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=lambda: TRAINING)
    parts: Mapping[str, Any] = field(default_factory=dict)
    order: int | None = 0

    def past(self, samples: int | None = None, held_out: float | None = None) -> dict[str, Any]:
        """The section `data` of a scenario about the first samples that arrived."""
        options = {"order": self.order, "samples": samples, "held_out": held_out}
        given = {key: value for key, value in options.items() if value is not None}
        return {"name": "past", "of": dict(self.data), **given, **self.data_settings}

    def scenario(
        self,
        name: str,
        data: Mapping[str, Any],
        arms: Mapping[str, Any],
        seeds: Iterable[int],
        *,
        chunk: int,
        rounds: int,
    ) -> dict[str, Any]:
        """A scenario in which the data arrive in their order, `chunk` samples at a time."""
        return {
            "name": name,
            "title": f"How should the next run on {self.name} start?",
            "data": dict(data),
            "stream": {"name": "online", "chunk_size": chunk, "rounds": rounds, "order": "given"},
            "model": dict(self.model),
            "training": dict(self.training),
            **({"parts": dict(self.parts)} if self.parts else {}),
            "strategies": dict(arms),
            "seeds": list(seeds),
            "metric": "test_accuracy",
        }


def make_question(
    data: str,
    model: str,
    *,
    arrival: str | None = None,
    training: Path | None = None,
    set: Iterable[str] = (),
    seed: int = 0,
) -> Question:
    """Finds out what kind of data and model are meant.

    Args:
        data: A folder of images or texts, a .csv or .tsv file of texts, a .npz file, a bundled name or
            "module:function".
        model: A bundled name or "module:function".
        arrival: A column, an array of the .npz file, "mtime", or "given" for the order of the data set; None draws a
            random order.
        training: A YAML file with the sections `training` and `parts` of a scenario file.
        set: Settings as "KEY=VALUE", such as "model.width=16" or "data.size=64".
        seed: Seeds the random order, and the split of data without test samples of their own.

    Raises:
        WarmstartError: It is not clear what is meant, or the data have no times.
    """
    raw: dict[str, Any] = {"data": _data(data), "model": {"name": model}, "training": dict(TRAINING)}
    if training is not None:
        raw |= _sections(training)
    raw = set_values(raw, set)
    for key in raw:
        if key not in SECTIONS:
            raise WarmstartError(f"--set {key}: {unknown('section', key, SECTIONS)}")
    settings = {key: raw["data"].pop(key) for key in DataSettings.model_fields if key in raw["data"]}
    if wrong := settings.keys() & {"validation_fraction", "train_samples"}:
        raise WarmstartError(f"--set data.{min(wrong)}: advise holds data out itself; leave it out")
    if arrival not in (None, "given"):
        if raw["data"]["name"] not in WITH_TIMES:
            raise WarmstartError(
                f"--arrival {arrival}: {data} has no times of arrival; folders, tables and .npz files may have some"
            )
        raw["data"]["arrival"] = arrival
    if raw["data"]["name"] == "image_folder":
        raw["data"].setdefault("size", IMAGE_SIZE)
    path = Path(data)
    name = (path.stem if path.is_file() else path.name).partition(":")[0]
    return Question(
        name, raw["data"], raw["model"], settings, raw["training"], raw.get("parts") or {},
        order=None if arrival else seed,
    )  # fmt: skip


def _data(data: str) -> dict[str, Any]:
    """The data set that a user's word means, as in a scenario file."""
    path = Path(data).expanduser()
    if data in DATASETS.names() or (":" in data and not path.exists()):
        return {"name": data}
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return {"name": "arrays", "path": data}
    if suffix in TABLE_SEPARATORS:
        return {"name": "text_folder", "path": data}
    if not path.is_dir():
        raise WarmstartError(
            f"DATA: {data}: no such file, folder or data set{nearest(data, DATASETS.names())} (allowed: a folder of "
            "images or texts, a .csv or .tsv file of texts, a .npz file, module:function, or one of "
            f"{', '.join(DATASETS.names())})"
        )
    suffixes = {file.suffix.lower() for file in path.rglob("*") if not file.name.startswith(".")}
    if suffixes & IMAGE_SUFFIXES:
        return {"name": "image_folder", "path": data}
    if suffixes & {".txt", *TABLE_SEPARATORS}:
        return {"name": "text_folder", "path": data}
    raise WarmstartError(
        f"DATA: the folder {data} holds neither images ({', '.join(sorted(IMAGE_SUFFIXES))}) nor texts (.txt, .csv)"
    )


def _sections(path: Path) -> dict[str, Any]:
    """The sections of a file of settings."""
    raw = load(path)
    allowed = ("training", "parts")
    for key in raw:
        if key not in allowed:
            raise WarmstartError(f"--training {path}: {unknown('section', key, allowed)}")
    return raw
