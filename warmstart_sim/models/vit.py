"""A small vision transformer."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from warmstart_sim.errors import WarmstartError
from warmstart_sim.models._options import Dropout
from warmstart_sim.registry import MODELS

PositiveInt = Annotated[int, Field(ge=1)]


@MODELS.register("vit", "trains_all")
def vit(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    patch: PositiveInt = 4,
    width: PositiveInt = 64,
    depth: PositiveInt = 4,
    heads: PositiveInt = 4,
    dropout: Dropout = 0.0,
) -> Any:
    """Vision transformer: patches as tokens, learned positions, pre-norm encoder layers, mean pooling, a linear head.

    z_0 = E x_patch + p, z_l = z + MLP(LN(z)) with z = z_(l-1) + MSA(LN(z_(l-1))), logits = W mean(LN(z_L)); Dosovitskiy
    et al. 2021 (https://arxiv.org/abs/2010.11929), with the mean over tokens instead of a class token, as Beyer et al.
    2022 (https://arxiv.org/abs/2205.01580) recommend for small data. Layers are PyTorch's `TransformerEncoderLayer`,
    with GELU and a hidden layer of four times the width.

    Args:
        input_shape: (channels, height, width).
        classes: The number of logits.
        patch: Height and width of a patch in pixels; both sides of the image are multiples of it. Default 4.
        width: Features of a token, a multiple of `heads`. Default 64.
        depth: Number of encoder layers. Default 4.
        heads: Attention heads. Default 4.
        dropout: In attention and hidden layers. Default 0.

    Returns:
        A module with blocks patches and layer1, layer2, ..., a last LayerNorm `norm`, and the head `head`.

    Raises:
        WarmstartError: The inputs are not images, their sides are no multiples of `patch`, or `width` is none of
            `heads`.
    """
    from torch import nn

    from warmstart_sim.models._layers import MeanOverTokens, Network, Patches, image_shape

    channels, height, width_in_pixels = image_shape(input_shape, "vit")
    if height % patch or width_in_pixels % patch:
        raise WarmstartError(f"model 'vit': patch: found {patch}; images of {height}x{width_in_pixels} need a divisor")
    if width % heads:
        raise WarmstartError(f"model 'vit': heads: found {heads}; a width of {width} needs a divisor")
    layers = {
        f"layer{k + 1}": nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        for k in range(depth)
    }
    return Network(
        ("norm",),
        patches=Patches(channels, patch, width, tokens=height * width_in_pixels // patch**2),
        **layers,
        norm=nn.LayerNorm(width),
        pool=MeanOverTokens(),
        head=nn.Linear(width, classes),
    )
