"""A small convolutional network, for small images and quick runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from warmstart_sim.models._options import KeepProbability
from warmstart_sim.registry import MODELS


@MODELS.register("small_cnn", "trains_all", "gains_by_compiling", without_hidden_units={"activation": "crelu"})
def small_cnn(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    channels: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (16, 32),
    batch_norm: bool = True,
    activation: Literal["relu", "aid", "crelu"] | None = None,
    p: KeepProbability | None = None,
) -> Any:
    """Small CNN: 3x3 convolutions with BatchNorm and ReLU, the first at full size, then one linear layer.

    Args:
        input_shape: (channels, height, width); each convolution after the first halves height and width, rounded up.
        classes: The number of logits.
        channels: Output channels of the convolutions, from input to output.
        batch_norm: Whether to apply BatchNorm after each convolution; without it, the convolution has a bias.
        activation: Default "relu"; "aid" or "crelu" as in `mlp`.
        p: Of "aid", as in `mlp`.

    Returns:
        A module with blocks conv1, conv2, ... and the head `head`.

    Raises:
        WarmstartError: The inputs are not images.
    """
    from torch import nn

    from warmstart_sim.models._layers import Flatten, Network, activation_layer, image_shape

    def convolution(channels_in: int, channels_out: int, stride: int) -> nn.Module:
        norm = [nn.BatchNorm2d(channels_out)] if batch_norm else []
        conv = nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=not batch_norm)
        return nn.Sequential(conv, *norm, activation_layer(activation or "relu", p)[0])

    channels_in, height, width = image_shape(input_shape, "small_cnn")
    blocks = {}
    for k, channels_out in enumerate(channels):
        stride = 1 if k == 0 else 2
        blocks[f"conv{k + 1}"] = convolution(channels_in, channels_out, stride)
        channels_in = activation_layer(activation or "relu", p)[1] * channels_out
        height, width = -(-height // stride), -(-width // stride)
    return Network(**blocks, flatten=Flatten(), head=nn.Linear(channels_in * height * width, classes))
