"""How should the next training run start? A simulator of retraining on data that keep arriving."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "Augment", "Dataset", "RandomInit", "Samples", "ShrinkPerturb", "WarmStart", "grid", "run", "save_weights", "start",
]  # fmt: skip

if TYPE_CHECKING:
    from warmstart_sim.api import grid, run
    from warmstart_sim.models.checkpoint_files import save_weights
    from warmstart_sim.parts.augment import Augment
    from warmstart_sim.starting import start
    from warmstart_sim.strategies.basic import RandomInit, WarmStart
    from warmstart_sim.strategies.shrink_perturb import ShrinkPerturb
    from warmstart_sim.types import Dataset, Samples
else:
    # Imported at first use (PEP 562), so that the command line answers before pydantic, NumPy and torch are loaded.
    _HOMES = {
        "grid": "api",
        "run": "api",
        "save_weights": "models.checkpoint_files",
        "start": "starting",
        "Augment": "parts.augment",
        "RandomInit": "strategies.basic",
        "WarmStart": "strategies.basic",
        "ShrinkPerturb": "strategies.shrink_perturb",
        "Dataset": "types",
        "Samples": "types",
    }

    def __getattr__(name):
        from importlib import import_module

        if name not in _HOMES:
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

    def __dir__():
        return sorted({*globals(), *__all__})
