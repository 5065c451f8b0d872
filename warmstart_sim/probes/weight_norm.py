"""The norm of the weights, block by block."""

from __future__ import annotations

from collections.abc import Mapping

from warmstart_sim.registry import PROBES
from warmstart_sim.types import RoundContext


@PROBES.register(
    "weight_norm",
    "ignores_previous",
    columns={"weight_norm": "L2 norm", "weight_norm_{block}": "L2 norm"},
    cost="no pass over data",
)
def weight_norm(context: RoundContext, /) -> Mapping[str, float | None]:
    """L2 norm of all parameters, of each block's, and of the head's.

    weight_norm_b = sqrt(sum over the parameters theta_i of block b of theta_i^2). Buffers do not count. Where
    blocks and head hold all parameters, the squares of their norms add up to the square of the whole.

    Columns:
        `weight_norm`, and `weight_norm_NAME` for every block and the head.

    >>> import torch
    >>> from warmstart_sim.types import Layout
    >>> layout = Layout(frozenset({"body.w", "head.w"}), frozenset(), blocks=("body",), head="head")
    >>> weights = {"body.w": torch.tensor([3.0]), "head.w": torch.tensor([4.0])}
    >>> context = RoundContext(round=0, layout=layout, generator=lambda purpose: torch.Generator(), weights=weights)
    >>> weight_norm(context)
    {'weight_norm': 5.0, 'weight_norm_body': 3.0, 'weight_norm_head': 4.0}
    """
    from warmstart_sim.probes._vectors import by_block, norm, parameters

    assert context.weights is not None
    norms = {f"weight_norm_{block}": norm(tensors) for block, tensors in by_block(context.weights, context.layout)}
    return {"weight_norm": norm(parameters(context.weights, context.layout).values()), **norms}
