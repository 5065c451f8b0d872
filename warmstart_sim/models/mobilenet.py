"""MobileNetV1, in a shallow form or in full."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field

from warmstart_sim.models._options import Dropout, Init, Norm, Stem, Width, stem_for
from warmstart_sim.registry import MODELS


@MODELS.register("mobilenet", "trains_all")
def mobilenet(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    widths: Annotated[tuple[Width, ...], Field(min_length=1)] = (32, 64, 128, 128, 256, 256, 512),
    stem: Stem | None = None,
    norm: Norm = "layer",
    init: Init = "he",
    dropout: Dropout = 0.0,
) -> Any:
    """MobileNetV1: a 3x3 convolution, depthwise separable convolutions, global average pooling, a linear head.

    Howard et al. 2017 (table 1, figure 3): each convolution, depthwise or pointwise, is followed by norm and ReLU. The
    stride is 2 where a block has more filters than the one below it, except from the first block to the second.

    Alabdulmohsin et al. 2021 (appendix B.1) use "the standard shallow MobileNet" with K = 7 blocks, and give no table.
    The shallow form of Howard et al. leaves out the five middle blocks of 512 filters, which leaves nine. Here the
    default is the first seven of these nine; `widths` gives the others:

    | form                        | `widths`                                                     |
    |-----------------------------|--------------------------------------------------------------|
    | seven blocks (default)      | [32, 64, 128, 128, 256, 256, 512]                            |
    | shallow, Howard et al. 2017 | [32, 64, 128, 128, 256, 256, 512, 1024, 1024]                |
    | full                        | [32, 64, 128, 128, 256, 256, then six times 512, 1024, 1024] |

    Args:
        input_shape: (channels, height, width); any image size.
        classes: The number of logits.
        widths: Filters of the blocks: the first is a convolution, all others are depthwise separable.
        stem: "imagenet": the first convolution has stride 2; "cifar": it has stride 1. Default: "cifar" below 128
            pixels, otherwise "imagenet".
        norm: "layer" (default, the paper's): over channels, height and width, `GroupNorm(1)`; "batch": BatchNorm;
            "none".
        init: "he" (default, the paper's): He normal; "xavier": Xavier uniform; "default": PyTorch's.
        dropout: The probability with which an input of the head is zero in a training step. Default 0. The paper: 0,
            0.25 or 0.5, and it does not say where.

    Returns:
        A module with blocks block1, block2, ... and the head `head`.

    Raises:
        WarmstartError: The inputs are not images.
    """
    from torch import nn

    from warmstart_sim.models._layers import GlobalAveragePool, Network, image_shape, initialize, norm_layer

    def convolution(channels_in: int, channels: int, **options: Any) -> nn.Module:
        conv = nn.Conv2d(channels_in, channels, bias=False, **options)
        return nn.Sequential(conv, norm_layer(norm, channels), nn.ReLU())

    def separable(channels_in: int, channels: int, stride: int) -> nn.Module:
        return nn.Sequential(
            convolution(channels_in, channels_in, kernel_size=3, stride=stride, padding=1, groups=channels_in),
            convolution(channels_in, channels, kernel_size=1),
        )

    channels, height, _ = image_shape(input_shape, "mobilenet")
    stride = 2 if stem_for(height, stem) == "imagenet" else 1
    blocks = {"block1": convolution(channels, widths[0], kernel_size=3, stride=stride, padding=1)}
    for k, (below, filters) in enumerate(pairwise(widths), start=2):
        blocks[f"block{k}"] = separable(below, filters, stride=2 if k > 2 and filters > below else 1)
    network = Network(
        **blocks,
        pool=nn.Sequential(GlobalAveragePool(), nn.Flatten(), *([nn.Dropout(dropout)] if dropout else [])),
        head=nn.Linear(widths[-1], classes),
    )
    return initialize(network, init)
