"""A valid scenario for the tests of scenarios to change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from warmstart_sim.scenario.yaml_files import set_path

BASE = {
    "name": "trial",
    "data": {"name": "digits"},
    "stream": {"name": "online", "chunk_size": 300},
    "model": {"name": "mlp", "widths": [8]},
    "training": {"optimizer": {"name": "adam", "lr": 0.01}, "until": {"train_accuracy": 0.9, "max_epochs": 3}},
    "strategies": {
        "random_init": {},
        "shrink_perturb": {"lambda": 0.5},
        "mine": {"start": "warm_start", "augment": ["rotation"]},
    },
    "seeds": [0, 1],
}


@pytest.fixture
def edited() -> Callable[..., dict[str, Any]]:
    """A copy of a valid scenario with changes: `edited({"training.batch_size": 64})`."""

    def edit(changes: dict[str, Any] | None = None) -> dict[str, Any]:
        raw = copy.deepcopy(BASE)
        for key, value in (changes or {}).items():
            set_path(raw, key, value)
        return raw

    return edit
