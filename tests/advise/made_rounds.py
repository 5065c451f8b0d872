"""Tables of rounds with known accuracies, as a run writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd


def made_rounds(
    accuracy: Mapping[str, Callable[[int, int], float]],
    seeds: int,
    rounds: int = 4,
    seconds: Mapping[str, float] | None = None,
    status: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Rows of rounds.csv.

    Args:
        accuracy: By start, its test accuracy as a function of seed and round.
        seeds: How many.
        rounds: How many.
        seconds: By start, its training seconds in a round; 1 by default.
        status: By start, how its rounds ended.
    """
    return pd.DataFrame(
        {
            "scenario": "made", "strategy": start, "seed": seed, "round": index, "shared": False,
            "train_samples": 100 * (index + 1), "epochs": 10, "steps": 10, "flops": 1.0, "converged": True,
            "samples_seen": 100 * (seconds or {}).get(start, 1.0), "status": (status or {}).get(start, "converged"),
            "cell_complete": True, "test_accuracy": function(seed, index), "criterion_seconds": 0.0,
            "train_seconds": (seconds or {}).get(start, 1.0), "estimated_isolated_seconds": None,
            "timing": "isolated", "device_name": "made",
        }
        for start, function in accuracy.items()
        for seed in range(seeds)
        for index in range(rounds)
    )  # fmt: skip
