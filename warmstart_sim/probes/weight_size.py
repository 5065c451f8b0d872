"""The size of the head's weights and of its input (Alabdulmohsin et al. 2021, Figure 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from warmstart_sim.registry import PROBES
from warmstart_sim.types import RoundContext


@PROBES.register(
    "weight_size",
    "ignores_previous",
    columns={"weight_size": "product of L2 norms"},
    cost="a forward pass over `samples`",
)
def weight_size(context: RoundContext, /, *, samples: Annotated[int, Field(ge=1)] = 256) -> Mapping[str, float | None]:
    """The Frobenius norm of the head's weights times that of its input.

    weight_size = ||W_head||_F ||H||_F, where H (n, features) is the input of the head for n training samples, in
    evaluation mode. It stands for the product of all layers' norms in a network with normalisation layers. Biases do
    not count. Source: Alabdulmohsin et al. 2021, section 4.1, appendix D and Figure 7 (relative to the baseline).

    Args:
        context: The round's context.
        samples: At most this many of the round's training samples, drawn at random once a round. Default 256.

    Columns:
        `weight_size`.
    """
    from warmstart_sim.probes._vectors import norm, parameters

    assert context.weights is not None
    inputs, _ = context.samples(context.some(context.train, samples, "weight_size"))
    own = parameters(context.weights, context.layout).items()
    head = [tensor for name, tensor in own if context.layout.in_head(name) and tensor.ndim > 1]
    return {"weight_size": norm(head) * norm([context.head_inputs(context.weights, inputs)])}
