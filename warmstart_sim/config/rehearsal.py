"""`--rehearse`: the same scenario end to end in about a minute on a CPU, offline, on stand-in data."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from warmstart_sim.data.image_sets import IMAGE_SETS

CELLS = 12
ROUNDS = 3
SAMPLES = 300
EPOCHS = 4
OFFLINE = ("digits", "noisy_digits", "synthetic", "image_folder", "arrays")
SMALL_MODELS = {
    "resnet18": {"width": 4},
    "mlp": {"widths": [16, 16, 16]},
    "small_cnn": {"channels": [4, 8]},
}


def rehearsal(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A reduced copy of a scenario: stand-in data of the same shape, few samples, rounds, epochs and cells, a small model.

    At most twelve cells remain: the ends of each axis, two seeds or one, and as many arms as fit.
    """
    small = copy.deepcopy(dict(raw))
    small["name"] = f"{small.get('name', 'scenario')}-rehearsal"
    small["data"] = _data(small["data"])
    small["model"] = _model(small.get("model", "small_cnn"))
    stream = _named(small.get("scenario", "static"))
    if "chunk_size" in stream or stream["name"] == "online":
        held_out = float(small["data"].get("validation_fraction", 0))
        pool = min(small["data"].get("train_samples") or SAMPLES, SAMPLES)
        stream["chunk_size"] = max(1, math.ceil(pool * (1 - held_out) / ROUNDS))
    if "rounds" in stream:
        stream["rounds"] = min(stream["rounds"], ROUNDS)
    small["scenario"] = stream
    small["training"] = _training(small.get("training") or {})
    return _fewer_cells(small)


def _named(value: Any) -> dict[str, Any]:
    return {"name": value} if isinstance(value, str) else dict(value)


def _data(value: Any) -> dict[str, Any]:
    data = _named(value)
    kept = {key: data[key] for key in ("validation_fraction", "normalize") if key in data}
    if data["name"] in OFFLINE:
        return {**data, "train_samples": SAMPLES, "test_samples": SAMPLES}
    name = data["name"] if data["name"] in IMAGE_SETS else "cifar10"
    return {"name": "synthetic", "like": name, "train_samples": SAMPLES, "test_samples": SAMPLES, **kept}


def _model(value: Any) -> Any:
    model = _named(value) if isinstance(value, (str, Mapping)) else value
    if isinstance(model, dict):
        model.update(SMALL_MODELS.get(model["name"], {}))
    return model


def _training(training: Mapping[str, Any]) -> dict[str, Any]:
    small = dict(training)
    until = dict(small.get("until") or {"train_accuracy": 0.99})
    until["max_epochs"] = min(until.get("max_epochs", EPOCHS), EPOCHS)
    for key, most in (("epochs", EPOCHS), ("steps", 10 * EPOCHS)):
        if until.get(key):
            until[key] = min(until[key], most)
    small["until"] = until
    small["batch_size"] = min(small.get("batch_size", 128), 64)
    return small


def _fewer_cells(small: dict[str, Any]) -> dict[str, Any]:
    axes = {}
    for key, values in (small.get("vary") or {}).items():
        ends = [values[0], values[-1]] if len(values) > 1 else list(values)
        axes["data.like" if key == "data.name" else key] = ends  # the stand-ins of the data sets that the axis names
    for key in reversed(axes):
        if math.prod(map(len, axes.values())) * len(small["strategies"]) > CELLS:
            axes[key] = axes[key][:1]
    if axes:
        small["vary"] = axes
    combinations = math.prod(map(len, axes.values()))
    small["strategies"] = dict(list(small["strategies"].items())[: max(1, CELLS // combinations)])
    room = CELLS // (combinations * len(small["strategies"]))
    small["seeds"] = list(small.get("seeds", [0]))[: max(1, min(2, room))]
    return small
