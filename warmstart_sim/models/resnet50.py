"""ResNet-50, torchvision's, with named blocks."""

from __future__ import annotations

from typing import Any

from warmstart_sim.models._options import Dropout, Init, Norm, Stem, Width, stem_for
from warmstart_sim.registry import MODELS


@MODELS.register("resnet50", "trains_all")
def resnet50(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    width: Width = 64,
    stem: Stem | None = None,
    norm: Norm = "layer",
    init: Init = "he",
    dropout: Dropout = 0.0,
) -> Any:
    """ResNet-50: a stem, 16 bottleneck blocks, global average pooling, a linear head.

    He et al. 2016 (https://arxiv.org/abs/1512.03385, table 1), by torchvision, whose `resnet50` it is with BatchNorm
    and the `imagenet` stem. Alabdulmohsin et al. 2021 (appendix B.1) count the 16 bottleneck blocks; here the first one
    contains the stem, so that every layer below the head is in a block.

    Args:
        input_shape: (channels, height, width); any image size.
        classes: The number of logits.
        width: Channels of the 3x3 convolutions of the first three blocks. 64 (default) is ResNet-50, 128 is Wide
            ResNet-50-2. The channels between blocks stay 256 to 2,048.
        stem: "imagenet": a 7x7 convolution with stride 2 and 3x3 max-pooling with stride 2; "cifar": a 3x3 convolution
            with stride 1. Default: "cifar" below 128 pixels, otherwise "imagenet".
        norm: "layer" (default, the paper's): over channels, height and width, `GroupNorm(1)`; "batch": BatchNorm;
            "none".
        init: "he" (default, the paper's): He normal, fan in, biases zero; "xavier": Xavier uniform; "default":
            torchvision's, He normal, fan out, for convolutions, and PyTorch's for the head.
        dropout: The probability with which an input of the head is zero in a training step. Default 0. The paper: 0 or
            0.25, and it does not say where.

    Returns:
        A module with blocks block1 to block16 and the head `head`.

    Raises:
        WarmstartError: The inputs are not images.
    """
    from functools import partial

    from torch import nn
    from torchvision.models.resnet import Bottleneck, ResNet

    from warmstart_sim.models._layers import GlobalAveragePool, Network, image_shape, initialize, norm_layer

    channels, height, _ = image_shape(input_shape, "resnet50")
    theirs = ResNet(
        Bottleneck, [3, 4, 6, 3], num_classes=classes, width_per_group=width, norm_layer=partial(norm_layer, norm)
    )
    kernel, stride = (7, 2) if (large := stem_for(height, stem) == "imagenet") else (3, 1)
    first = nn.Conv2d(channels, 64, kernel_size=kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's
    lowest, *others = [
        block for layer in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4) for block in layer
    ]
    network = Network(
        block1=nn.Sequential(first, theirs.bn1, theirs.relu, *([theirs.maxpool] if large else []), lowest),
        **{f"block{k}": block for k, block in enumerate(others, start=2)},
        pool=nn.Sequential(GlobalAveragePool(), nn.Flatten(), *([nn.Dropout(dropout)] if dropout else [])),
        head=theirs.fc,
    )
    return initialize(network, init)
