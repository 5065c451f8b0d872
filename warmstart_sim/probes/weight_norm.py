"""The norm of the weights, block by block."""

from __future__ import annotations

from collections.abc import Mapping

from warmstart_sim.registry import PROBES
from warmstart_sim.types import RoundContext


@PROBES.register("weight_norm", columns={"weight_norm_{block}": "L2 norm", "weight_norm": "L2 norm"}, cost="no pass")
def weight_norm(context: RoundContext, /) -> Mapping[str, float]:
    """L2 norm of the parameters of each block, of the head, and of all."""
    raise NotImplementedError
