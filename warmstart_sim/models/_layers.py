"""Torch modules that the models share. Models import it only when they are built, because it imports torch."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

from warmstart_sim.errors import WarmstartError


class Network(nn.Sequential):
    """A sequence of named modules that declares its blocks and its head.

    Attributes:
        block_names: The modules with parameters, from input to output, without the head.
        head_name: The last module, whose output is the logits.
    """

    block_names: tuple[str, ...]
    head_name: str

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__(OrderedDict(modules))
        *body, self.head_name = modules
        self.block_names = tuple(name for name in body if list(modules[name].parameters()))


class BasicBlock(nn.Module):
    """The residual block of ResNet-18: relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)).

    He et al. 2016, https://arxiv.org/abs/1512.03385. The shortcut is the identity if the shapes agree, otherwise a 1x1
    convolution with BatchNorm.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps (n, channels_in, height, width) to (n, channels, height / stride, width / stride)."""
        hidden = F.relu(self.norm1(self.conv1(inputs)))
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(inputs))


def image_shape(input_shape: tuple[int, ...], model: str) -> tuple[int, int, int]:
    """Returns the shape of one image, (channels, height, width).

    Raises:
        WarmstartError: The inputs are not images.
    """
    if len(input_shape) != 3:
        raise WarmstartError(
            f"model '{model}' needs images (channels, height, width), but one input has shape {tuple(input_shape)}"
        )
    channels, height, width = input_shape
    return channels, height, width
