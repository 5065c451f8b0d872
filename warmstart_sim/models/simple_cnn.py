"""The simple CNN of Alabdulmohsin et al. 2021."""

from __future__ import annotations

from typing import Any

from warmstart_sim.models._options import Dropout, Init, Norm, Width
from warmstart_sim.registry import MODELS


@MODELS.register("simple_cnn", "trains_all")
def simple_cnn(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    width: Width = 32,
    norm: Norm = "layer",
    init: Init = "he",
    dropout: Dropout = 0.0,
) -> Any:
    """Simple CNN: four blocks of convolution, norm and ReLU, max-pooling after the second and fourth, a dense layer.

    Alabdulmohsin et al. 2021 (appendix B.1): 32, 32, 64 and 64 filters, and 512 dense units with norm, ReLU, dropout.
    The text gives no kernel size and no padding: here 3x3 with padding, so that a convolution keeps the image's size.

    Args:
        input_shape: (channels, height, width); each pooling halves height and width, rounded up.
        classes: The number of logits.
        width: Filters of the first two blocks; the last two have twice, the dense layer 16 times as many. Default 32.
        norm: After each convolution and the dense layer. "layer" (default, the paper's): over channels, height and
            width, `GroupNorm(1)`; "batch": BatchNorm; "none".
        init: "he" (default, the paper's): He normal, biases zero; "xavier": Xavier uniform; "default": PyTorch's.
        dropout: The probability with which a dense unit is zero in a training step. Default 0. The paper: 0 or 0.25.

    Returns:
        A module with blocks block1 to block4, a dense layer `dense` and the head `head`.

    Raises:
        WarmstartError: The inputs are not images.
    """
    from torch import nn

    from warmstart_sim.models._layers import (
        Flatten,
        Network,
        convolution_block,
        image_shape,
        initialize,
        norm_layer,
        pooled,
    )

    channels, *size = image_shape(input_shape, "simple_cnn")
    rows, columns = (pooled(pooled(side)) for side in size)
    network = Network(
        ("dense",),
        block1=convolution_block(channels, width, norm),
        block2=convolution_block(width, width, norm, pool=True),
        block3=convolution_block(width, 2 * width, norm),
        block4=convolution_block(2 * width, 2 * width, norm, pool=True),
        flatten=Flatten(),
        dense=nn.Sequential(
            nn.Linear(2 * width * rows * columns, 16 * width),
            norm_layer(norm, 16 * width, flat=True),
            nn.ReLU(),
            *([nn.Dropout(dropout)] if dropout else []),
        ),
        head=nn.Linear(16 * width, classes),
    )
    return initialize(network, init)
