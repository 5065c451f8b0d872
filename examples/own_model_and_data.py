"""Your own arrays and your own model. Offline; under a minute on one CPU core.

python examples/own_model_and_data.py

The example data, three noisy spirals, are saved as an .npz file, as yours could be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from torch import nn

from warmstart_sim import run


def build(input_shape: tuple[int, ...], classes: int, *, units: int = 64) -> nn.Module:
    """Your model. It is called for every round and seed, so each gets fresh weights."""
    return nn.Sequential(
        nn.Linear(math.prod(input_shape), units),
        nn.BatchNorm1d(units),
        nn.ReLU(),
        nn.Linear(units, units),
        nn.BatchNorm1d(units),
        nn.ReLU(),
        nn.Linear(units, classes),
    )


def save_spirals(path: Path, count: int = 1800, noise: float = 0.15) -> None:
    """Your data: x_train, y_train, x_test, y_test in one file. Floats are used as they are; labels start at 0."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, size=count)
    radius = generator.uniform(0.1, 1.0, size=count)
    angle = 4 * radius + 2 * np.pi / 3 * labels + noise * generator.standard_normal(count)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    end = count * 2 // 3
    np.savez(path, x_train=points[:end], y_train=labels[:end], x_test=points[end:], y_test=labels[end:])


def main(seeds: Iterable[int] = range(3), rounds: int = 6, runs: Path = Path("runs")) -> None:
    """Compares three strategies on spirals that arrive 200 samples at a time."""
    path = runs / "spirals.npz"
    save_spirals(path)
    results = run(
        {
            "name": "spirals",
            "data": {"name": "arrays", "path": str(path)},
            "stream": {"name": "online", "chunk_size": 200, "rounds": rounds},
            "model": {"name": build, "units": 32},
            "training": {"batch_size": 64, "until": {"train_accuracy": 0.95, "max_epochs": 200}},
            "strategies": {"random_init": {}, "warm_start": {}, "shrink_perturb": {"lambda": 0.6, "sigma": 0.1}},
            "seeds": list(seeds),
        },
        out=runs / "spirals",
    )
    columns = ["strategy", "final_accuracy", "difference", "difference_low", "difference_high", "time_ratio"]
    print(results.summary()[columns].round(3).to_string(index=False))
    print(f"report: {runs / 'spirals' / 'report.html'}")


if __name__ == "__main__":
    main()
