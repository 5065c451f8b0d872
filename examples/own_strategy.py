"""Compares your own strategy, a single function, with the built-in ones. Offline; under a minute on one CPU core.

python examples/own_strategy.py
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from warmstart_sim import run
from warmstart_sim.types import RoundContext, StateDict


def renew_half(previous: StateDict, fresh: StateDict, context: RoundContext, *, share: float = 0.5) -> StateDict:
    """Replaces a random share of the last weights by fresh ones.

    theta <- (1 - m) theta_previous + m theta_fresh, with m = 1 for a `share` of the weights and 0 for the others.
    Buffers (BatchNorm's running statistics) are kept.
    """
    generator = context.generator("renew")  # of this seed and round, on the CPU: the same mask on every device
    start = dict(previous)
    for name in sorted(context.layout.parameters):
        renewed = torch.rand(previous[name].shape, generator=generator) < share
        start[name] = torch.where(renewed.to(previous[name].device), fresh[name], previous[name])
    return start


def main(seeds: Iterable[int] = range(3), rounds: int = 4, out: Path = Path("runs/own_strategy")) -> None:
    """Compares the strategies on noisy digits that arrive 300 at a time."""
    results = run(
        "digits_online",
        strategies=["random_init", "warm_start", "shrink_perturb", renew_half],
        seeds=seeds,
        set=["stream.chunk_size=300", f"stream.rounds={rounds}"],
        out=out,
    )
    columns = ["strategy", "final_accuracy", "difference", "difference_low", "difference_high", "time_ratio"]
    print(results.summary()[columns].round(3).to_string(index=False))
    print(f"report: {out / 'report.html'}")


if __name__ == "__main__":
    main()
