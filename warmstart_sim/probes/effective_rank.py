"""How many directions a block's outputs really use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.registry import PROBES
from warmstart_sim.types import RoundContext

if TYPE_CHECKING:
    import torch


@PROBES.register(
    "effective_rank",
    "ignores_previous",
    columns={"effective_rank_{block}": "directions"},
    cost="a forward pass and an SVD",
)
def effective_rank(
    context: RoundContext, /, *, block: str | None = None, samples: Annotated[int, Field(ge=2)] = 512
) -> Mapping[str, float | None]:
    """Effective rank of a block's output over training samples.

    erank(H) = exp(-sum_i p_i log p_i) with p_i = sigma_i / sum_j sigma_j, where sigma are the singular values of the
    outputs H (samples x features, positions flattened). It lies between 1 and min(samples, features). Source: Roy &
    Vetterli 2007.

    Args:
        context: The round's context.
        block: The name of a block, or of any other module. Default: the last block, in front of the head.
        samples: At most this many of the round's training samples, drawn at random once a round. Default 512.

    Columns:
        `effective_rank_NAME`; empty where all outputs are zero.

    Raises:
        WarmstartError: The model has no such block.
    """
    assert context.weights is not None
    blocks = context.layout.blocks
    name = block or (blocks[-1] if blocks else context.layout.head)
    inputs, _ = context.samples(context.some(context.train, samples, "effective_rank"))
    try:
        outputs = context.block_outputs(context.weights, name, inputs)
    except AttributeError:
        raise WarmstartError(
            f"probe effective_rank: {unknown('block', name, (*blocks, context.layout.head))}"
        ) from None
    # A sequence (length, n, features) has a row for each token, anything else (n, ...) one for each sample.
    return {f"effective_rank_{name}": rank(outputs.flatten(0, 1) if outputs.ndim == 3 else outputs.flatten(1))}


def rank(matrix: torch.Tensor) -> float | None:
    """The effective rank of a matrix; None for a matrix of zeros.

    >>> import torch
    >>> round(rank(torch.eye(3)), 6)
    3.0
    """
    import torch

    values = torch.linalg.svdvals(matrix.double())
    if values.sum() == 0:
        return None
    shares = values / values.sum()
    return torch.exp(-torch.xlogy(shares, shares).sum()).item()
