"""Units that are silent on all samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from warmstart_sim.registry import PROBES
from warmstart_sim.types import RoundContext


@PROBES.register(
    "dead_units",
    "ignores_previous",
    columns={"dead_units": "fraction", "dead_units_{block}": "fraction"},
    cost="a forward pass per block",
)
def dead_units(
    context: RoundContext,
    /,
    *,
    samples: Annotated[int, Field(ge=1)] = 512,
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> Mapping[str, float | None]:
    """Share of dead (dormant) units in the output of each block, and of all blocks together.

    Unit k of a block is dead if s_k = mean |h_k| / (mean over units of mean |h|) <= threshold, where h_k is the unit's
    output (a feature, or a channel with all its positions) over the samples. With threshold 0 these are the units that
    are zero everywhere, as after a ReLU that never fires; a normalisation that a strategy has inserted comes after h.
    Source: Sokar et al. 2023 (ReDo), section 3.

    Args:
        context: The round's context.
        samples: At most this many of the round's training samples, drawn at random once a round. Default 512.
        threshold: In [0, 1). Default 0.

    Columns:
        `dead_units`, and `dead_units_NAME` for every block.
    """
    from warmstart_sim.hidden_units import silent

    assert context.weights is not None
    inputs, _ = context.samples(context.some(context.train, samples, "dead_units"))
    dead = {
        block: silent(context.block_outputs(context.weights, block, inputs, normalized=False), threshold)
        for block in context.layout.blocks
    }
    units = sum(len(each) for each in dead.values())
    shares: dict[str, float | None] = {
        f"dead_units_{block}": each.double().mean().item() for block, each in dead.items()
    }
    return {"dead_units": sum(each.sum().item() for each in dead.values()) / units if units else None, **shares}
