"""A small decoder-only transformer, for the next token of a text."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PositiveInt

from warmstart_sim.errors import WarmstartError
from warmstart_sim.models._options import Dropout
from warmstart_sim.registry import MODELS


@MODELS.register("decoder", "tokens", "next_token", "trains_all")
def decoder(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    vocabulary_size: Annotated[int, Field(ge=2)] | None = None,
    width: PositiveInt = 64,
    depth: PositiveInt = 2,
    heads: PositiveInt = 4,
    dropout: Dropout = 0.0,
    tied: bool = False,
) -> Any:
    """Decoder-only transformer for the next token: learned positions, pre-norm causal layers, a linear head.

    z_0 = E[token] + p, z_l = z + MLP(LN(z)) with z = z_(l-1) + attention(LN(z_(l-1))), logits = W LN(z_L) at each
    position; the layers of GPT-2 (Radford et al. 2019), with GELU and a hidden layer of four times the width. Vectors
    of tokens and positions start with deviation 0.02, linear layers as PyTorch's. The head has no bias.

    Args:
        input_shape: (length,): the tokens of a window.
        classes: The number of logits at each position.
        vocabulary_size: The number of tokens. By default the data set's.
        width: Features of a token, a multiple of `heads`. Default 64.
        depth: Number of layers. Default 2.
        heads: Attention heads. Default 4.
        dropout: In attention and hidden layers. Default 0.
        tied: Whether the head's weight is that of the tokens. A start that treats the head apart treats both as the
            head. Default false.

    Returns:
        A module with blocks embedding and layer1, layer2, ..., a last LayerNorm `norm`, and the head `head`; its logits
        are (n, classes, length).

    Raises:
        WarmstartError: The inputs are not tokens, `width` is no multiple of `heads`, or `tied` and there are not as
            many classes as tokens.
    """
    if len(input_shape) != 1 or vocabulary_size is None:
        raise WarmstartError(
            f"model 'decoder' needs tokens (length,) and their vocabulary_size, but one input has shape "
            f"{tuple(input_shape)} and vocabulary_size is {vocabulary_size}; choose a data set such as text_file"
        )
    if width % heads:
        raise WarmstartError(f"model 'decoder': heads: found {heads}; a width of {width} needs a divisor")
    if tied and classes != vocabulary_size:
        raise WarmstartError(f"model 'decoder': tied: {classes} classes cannot share the vectors of {vocabulary_size}")
    from torch import nn

    from warmstart_sim.models._transformer import CausalLayer, NextTokenNetwork, TokensAndPositions

    embedding, head = TokensAndPositions(vocabulary_size, input_shape[0], width), nn.Linear(width, classes, bias=False)
    if tied:
        head.weight = embedding.token.weight
    layers = {f"layer{k + 1}": CausalLayer(width, heads, dropout) for k in range(depth)}
    return NextTokenNetwork(("norm",), embedding=embedding, **layers, norm=nn.LayerNorm(width), head=head)
