"""Last layer only: train the head on the last round's features (Ash & Adams 2020, Table 5)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from warmstart_sim.registry import STRATEGIES
from warmstart_sim.types import RoundContext, Start, StateDict


@STRATEGIES.register("last_layer")
@dataclass(frozen=True)
class LastLayer:
    """Start from the last weights and train only the head, for some rounds; then train all of the network.

    theta <- theta_previous, buffers included. In the rounds 1 to `rounds` only the head trains, and BatchNorm in front
    of it stays in evaluation mode, so that the features of a sample do not change. From then on it is warm start.

    Ash & Adams 2020 (Table 5) call it LL, and LL+WS when a round of training the whole network on the same data
    follows: `stream: {name: split, repeats: 1}` with `rounds: 1`.

    Attributes:
        rounds: For how many rounds after the first only the head trains; with 0 it is exactly warm start. Default
            None: for all of them.
    """

    rounds: Annotated[int, Field(ge=0)] | None = None

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext) -> StateDict | Start:
        """The previous state, with the head as the only thing that trains for some rounds."""
        if self.rounds is not None and context.round > self.rounds:
            return previous
        return Start(previous, trainable={name for name in context.layout.parameters if context.layout.in_head(name)})
