"""A window that forgets old data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import PositiveInt

from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import CHANGES
from warmstart_sim.types import IntArray, Round


@CHANGES.register("window", changes="rounds")
def window(
    rounds: list[Round],
    labels: IntArray,
    seed: int,
    *,
    last_rounds: PositiveInt | None = None,
    last_samples: PositiveInt | None = None,
) -> list[Round]:
    """Rounds train on the newest samples only; older ones are forgotten.

    Args:
        rounds: The stream's rounds.
        labels: Not used.
        seed: Not used.
        last_rounds: Train on the samples that arrived with the last n rounds, this one included.
        last_samples: Train on the last n samples, instead.

    Raises:
        WarmstartError: Neither or both are given, or a window holds no samples.

    >>> rounds = [Round(t, np.arange(2 * t + 2), np.arange(2 * t, 2 * t + 2)) for t in range(3)]
    >>> [each.train.tolist() for each in window(rounds, np.zeros(6, int), 0, last_rounds=2)]
    [[0, 1], [0, 1, 2, 3], [2, 3, 4, 5]]
    >>> [each.train.tolist() for each in window(rounds, np.zeros(6, int), 0, last_samples=3)]
    [[0, 1], [1, 2, 3], [3, 4, 5]]
    """
    if (last_rounds is None) == (last_samples is None):
        raise WarmstartError("stream.changes.window: give one of `last_rounds` and `last_samples`")
    if last_samples is not None:
        return [replace(each, train=each.train[-last_samples:], new=each.new[-last_samples:]) for each in rounds]
    assert last_rounds is not None
    kept = []
    for position, each in enumerate(rounds):
        train = np.concatenate([recent.new for recent in rounds[max(0, position + 1 - last_rounds) : position + 1]])
        if len(train) == 0:
            raise WarmstartError(
                f"stream.changes.window.last_rounds: found {last_rounds}; this window holds no samples in round "
                f"{each.index}, because the last ones arrived in round {each.index - last_rounds}"
            )
        kept.append(replace(each, train=train))
    return kept
