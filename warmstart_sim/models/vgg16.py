"""VGG16 with a norm after each convolution."""

from __future__ import annotations

from typing import Any

from warmstart_sim.models._options import Dropout, Init, Norm, Width
from warmstart_sim.registry import MODELS

STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))  # filters in multiples of the width, and convolutions
DENSE = 64  # units of each dense layer, in multiples of the width


@MODELS.register("vgg16", "trains_all")
def vgg16(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    width: Width = 64,
    norm: Norm = "layer",
    init: Init = "he",
    dropout: Dropout = 0.0,
) -> Any:
    """VGG16: 13 blocks of a 3x3 convolution, norm and ReLU, five max-poolings, two dense layers of 4,096 units.

    Simonyan & Zisserman 2015 (table 1, D), with the norm of Alabdulmohsin et al. 2021 (appendix B.1). Without a norm it
    is torchvision's `vgg16`, with BatchNorm `vgg16_bn`, on images whose sides are 224. On smaller ones the first dense
    layer has fewer inputs: 512 at 32 pixels, 2,048 at 64.

    Args:
        input_shape: (channels, height, width); each pooling halves height and width, rounded up.
        classes: The number of logits.
        width: Filters of the first block; all others, and the dense units, are multiples. Default 64.
        norm: After each convolution. "layer" (default, the paper's): over channels, height and width, `GroupNorm(1)`;
            "batch": BatchNorm; "none": as in the paper's appendix F.
        init: "he" (default, the paper's): He normal, biases zero; "xavier": Xavier uniform; "default": PyTorch's.
        dropout: The probability with which a dense unit is zero in a training step. Default 0. The paper: 0, 0.25, 0.5.

    Returns:
        A module with blocks block1 to block13, dense layers dense1 and dense2, and the head `head`.

    Raises:
        WarmstartError: The inputs are not images.
    """
    from torch import nn

    from warmstart_sim.models._layers import Flatten, Network, convolution_block, image_shape, initialize, pooled

    def dense(units_in: int) -> nn.Module:
        drop = [nn.Dropout(dropout)] if dropout else []
        return nn.Sequential(nn.Linear(units_in, DENSE * width), nn.ReLU(), *drop)

    channels, rows, columns = image_shape(input_shape, "vgg16")
    blocks: dict[str, nn.Module] = {}
    for multiple, convolutions in STAGES:
        for k in range(convolutions):
            filters, last = multiple * width, k == convolutions - 1
            blocks[f"block{len(blocks) + 1}"] = convolution_block(channels, filters, norm, pool=last)
            channels = filters
        rows, columns = pooled(rows), pooled(columns)
    network = Network(
        ("dense1", "dense2"),
        **blocks,
        flatten=Flatten(),
        dense1=dense(channels * rows * columns),
        dense2=dense(DENSE * width),
        head=nn.Linear(DENSE * width, classes),
    )
    return initialize(network, init)
