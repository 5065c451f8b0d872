"""The two baselines of every comparison: train from scratch, or continue from the last round's weights."""

from __future__ import annotations

from typing import Literal

from pydantic.dataclasses import dataclass

from warmstart_sim.registry import STRATEGIES
from warmstart_sim.types import RoundContext, StateDict

Draw = Literal["initial"]


def drawn(draw: Draw | None, fresh: StateDict, context: RoundContext) -> StateDict:
    """The weights that a reset takes: `fresh`, or those of round 0."""
    return context.initial() if draw == "initial" else fresh


@STRATEGIES.register("random_init", "ignores_previous")
@dataclass(frozen=True)
class RandomInit:
    """Start every round from a fresh random initialisation: accurate but slow.

    theta <- theta_fresh, buffers included.

    Attributes:
        draw: Default None: a fresh draw in every round. "initial": theta <- theta_0, the initialisation of round 0, in
            every round. Studies of resets mean one or the other.

    >>> RandomInit()({"w": 1.0}, {"w": 2.0}, context=None)
    {'w': 2.0}
    """

    draw: Draw | None = None

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext) -> StateDict:
        """The fresh state, or the initial one."""
        return drawn(self.draw, fresh, context)


@STRATEGIES.register("warm_start")
@dataclass(frozen=True)
class WarmStart:
    """Start from the weights that the last round ended with: fast, but generalises worse.

    theta <- theta_previous, buffers included (Ash & Adams 2020, section 2).

    >>> WarmStart()({"w": 1.0}, {"w": 2.0}, context=None)
    {'w': 1.0}
    """

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext) -> StateDict:
        """The previous state."""
        return previous
