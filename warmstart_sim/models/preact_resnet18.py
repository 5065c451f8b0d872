"""PreAct-ResNet-18: ResNet-18 with norm and ReLU before each convolution."""

from __future__ import annotations

from typing import Any

from warmstart_sim.models._options import Init, Stem, Width, stem_for
from warmstart_sim.registry import MODELS


@MODELS.register("preact_resnet18", "trains_all")
def preact_resnet18(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    width: Width = 64,
    stem: Stem | None = None,
    init: Init = "default",
) -> Any:
    """PreAct-ResNet-18: a stem, four layers of two pre-activation blocks, norm, ReLU, average pooling, a linear head.

    He et al. 2016 (https://arxiv.org/abs/1603.05027): a block is x + conv(relu(norm(conv(relu(norm(x)))))), so the sum
    goes on unchanged. Where channels or stride change, the shortcut is a 1x1 convolution of relu(norm(x)). The first
    block begins with a convolution, because its inputs come from the stem's norm and ReLU. Zaidi et al. 2022 use it on
    Tiny ImageNet, and do not say which stem; at 64 pixels the default keeps 8x8 positions before the pooling.

    For 3x32x32 inputs and ten classes it has 11,172,170 parameters at width 64. The widespread code for CIFAR
    (kuangliu/pytorch-cifar) lacks the last norm, and has 1,024 fewer.

    Args:
        input_shape: (channels, height, width); any image size.
        classes: The number of logits.
        width: Channels of the first layer; the four layers have width x {1, 2, 4, 8}. Default 64.
        stem: "imagenet": a 7x7 convolution with stride 2 and 3x3 max-pooling with stride 2; "cifar": a 3x3 convolution
            with stride 1. Default: "cifar" below 128 pixels, otherwise "imagenet".
        init: "he": He normal, fan in, biases zero; "xavier": Xavier uniform; "default" (default): PyTorch's.

    Returns:
        A module with blocks stem, layer1, layer2, layer3, layer4, which ends with the last norm, and the head `head`.

    Raises:
        WarmstartError: The inputs are not images.
    """
    from torch import nn

    from warmstart_sim.models._layers import GlobalAveragePool, Network, PreActBlock, image_shape, initialize

    def layer(channels_in: int, channels: int, stride: int, *, first: bool = False) -> nn.Sequential:
        lower = PreActBlock(channels_in, channels, stride, activated=first)
        return nn.Sequential(lower, PreActBlock(channels, channels, 1))

    channels, height, _ = image_shape(input_shape, "preact_resnet18")
    kernel, stride = (7, 2) if (large := stem_for(height, stem) == "imagenet") else (3, 1)
    network = Network(
        stem=nn.Sequential(
            nn.Conv2d(channels, width, kernel_size=kernel, stride=stride, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            *([nn.MaxPool2d(kernel_size=3, stride=2, padding=1)] if large else []),
        ),
        layer1=layer(width, width, 1, first=True),
        layer2=layer(width, 2 * width, 2),
        layer3=layer(2 * width, 4 * width, 2),
        layer4=layer(4 * width, 8 * width, 2).extend([nn.BatchNorm2d(8 * width), nn.ReLU()]),
        pool=nn.Sequential(GlobalAveragePool(), nn.Flatten()),
        head=nn.Linear(8 * width, classes),
    )
    return initialize(network, init)
