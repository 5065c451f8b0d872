"""MobileNetV2, torchvision's, with named blocks."""

from __future__ import annotations

from typing import Any

from warmstart_sim.models._options import Dropout, Init, Stem, Width, stem_for
from warmstart_sim.registry import MODELS

# Sandler et al. 2018, table 2: expansion, channels, blocks, stride of the first block.
BOTTLENECKS = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


@MODELS.register("mobilenet_v2", "trains_all")
def mobilenet_v2(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    width: Width = 32,
    stem: Stem | None = None,
    init: Init = "default",
    dropout: Dropout = 0.0,
) -> Any:
    """MobileNetV2: a 3x3 convolution, 17 inverted residual blocks, a 1x1 convolution, average pooling, a linear head.

    Sandler et al. 2018 (https://arxiv.org/abs/1801.04381, table 2), by torchvision, whose `mobilenet_v2` it is with the
    `imagenet` stem and a dropout of 0.2. Zaidi et al. 2022 (figure 12) train it on images of 32 pixels, and do not say
    how: here, as in the widespread code for CIFAR (kuangliu/pytorch-cifar), the first two of its five strides are 1
    then, which leaves 4x4 positions before the pooling.

    Args:
        input_shape: (channels, height, width); any image size.
        classes: The number of logits.
        width: Channels of the first convolution. Default 32; 16 is "MobileNetV2 0.5". All others are multiples, rounded
            to multiples of 8; the last convolution has 1,280 at least.
        stem: "imagenet": strides as published; "cifar": the first convolution and the first strided block have
            stride 1. Default: "cifar" below 128 pixels, otherwise "imagenet".
        init: "he": He normal, fan in, biases zero; "xavier": Xavier uniform; "default" (default): torchvision's, He
            normal, fan out, for convolutions, and a deviation of 0.01 for the head.
        dropout: The probability with which an input of the head is zero in a training step. Default 0.

    Returns:
        A module with blocks stem, block1 to block17 and conv, and the head `head`.

    Raises:
        WarmstartError: The inputs are not images.
    """
    from torch import nn
    from torchvision.models.mobilenetv2 import MobileNetV2

    from warmstart_sim.models._layers import GlobalAveragePool, Network, image_shape, initialize

    channels, height, _ = image_shape(input_shape, "mobilenet_v2")
    large = stem_for(height, stem) == "imagenet"
    strides = [2 if large else 1, *(1 if filters == 24 and not large else s for _, filters, _, s in BOTTLENECKS)]
    settings = [[t, c, n, s] for (t, c, n, _), s in zip(BOTTLENECKS, strides[1:], strict=True)]
    theirs = MobileNetV2(classes, width_mult=width / 32, inverted_residual_setting=settings)
    (convolution, *rest), *blocks, top = theirs.features
    first = nn.Conv2d(channels, convolution.out_channels, kernel_size=3, stride=strides[0], padding=1, bias=False)
    nn.init.kaiming_normal_(first.weight, mode="fan_out")  # as torchvision's
    network = Network(
        stem=nn.Sequential(first, *rest),
        **{f"block{k}": block for k, block in enumerate(blocks, start=1)},
        conv=top,
        pool=nn.Sequential(GlobalAveragePool(), nn.Flatten(), *([nn.Dropout(dropout)] if dropout else [])),
        head=theirs.classifier[1],
    )
    return initialize(network, init)
