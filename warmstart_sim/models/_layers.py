"""Torch modules that the models share. Models import it only when they are built, because it imports torch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

import torch
from torch import nn
from torch.nn import functional as F

from warmstart_sim.errors import WarmstartError
from warmstart_sim.models._options import Activation, Init, Norm
from warmstart_sim.types import INSERTED_NORMALIZATION


class Network(nn.Sequential):
    """A sequence of named modules that declares its blocks and its head.

    Args:
        above: Names of the modules with parameters between the last block and the head, such as dense layers.
        **modules: From input to output; the last one is the head.

    Attributes:
        block_names: The modules with parameters, from input to output, without `above` and the head.
        head_name: The last module, whose output is the logits.
    """

    block_names: tuple[str, ...]
    head_name: str

    def __init__(self, above: Collection[str] = (), /, **modules: nn.Module) -> None:
        super().__init__(OrderedDict(modules))
        *body, self.head_name = modules
        self.block_names = tuple(name for name in body if name not in above and list(modules[name].parameters()))


class Flatten(nn.Flatten):
    """`nn.Flatten`, with `keep_format`."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Flattens all dimensions but the first."""
        return super().forward(keep_format(inputs))


class GlobalAveragePool(nn.AdaptiveAvgPool2d):
    """`nn.AdaptiveAvgPool2d(1)`, with `keep_format`."""

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The mean of each channel, shape (n, channels, 1, 1)."""
        return super().forward(keep_format(inputs))


def keep_format(inputs: torch.Tensor) -> torch.Tensor:
    """Gives the gradient of images the memory format of the images, where torch would give it another one.

    The backward pass of an activation before it would read one tensor in each format, which takes a CPU ten times as
    long. The numbers are the same, up to rounding in BatchNorm.
    """
    images = inputs.ndim == 4 and inputs.is_contiguous(memory_format=torch.channels_last)
    if images and inputs.requires_grad and inputs.device.type == "cpu" and not torch.compiler.is_compiling():
        inputs.register_hook(_to_channels_last)
    return inputs


def _to_channels_last(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


class InsertedNormalization(nn.Module):
    """(x - mean) / deviation with scalars that do not train; the identity until a strategy sets them."""

    elementwise = True
    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))

    def reset_parameters(self) -> None:
        """Makes it the identity again, as in a new model."""
        self.mean.zero_()
        self.deviation.fill_(1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalises a block's output of any shape."""
        return (inputs - self.mean) / self.deviation


class Aid(nn.Module):
    """Activation by interval-wise dropout: keeps x >= 0 with probability p, and x < 0 with probability 1 - p.

    In evaluation mode x is multiplied by the probability with which it is kept. Park et al. 2025,
    https://arxiv.org/abs/2502.01342, with p 0.9 on CIFAR-10 and 0.7 on CIFAR-100. With p = 1 it is ReLU.

    Args:
        p: In [0.5, 1].
    """

    elementwise = True

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The activation, of any shape; masks come from torch's default generator, as those of dropout."""
        kept = torch.where(inputs >= 0, self.p, 1 - self.p).to(inputs.dtype)
        return inputs * (torch.bernoulli(kept) if self.training else kept)

    def extra_repr(self) -> str:
        """The probability, for printing."""
        return f"p={self.p}"


class CRelu(nn.Module):
    """Concatenated ReLU: (relu(x), relu(-x)), twice as many features or channels.

    Shang et al. 2016, https://arxiv.org/abs/1603.05201; for plasticity Abbas et al. 2023,
    https://arxiv.org/abs/2303.07507.
    """

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps (n, features, ...) to (n, 2 * features, ...)."""
        return torch.cat((inputs, -inputs), dim=1).relu()


def activation_layer(name: Activation, p: float | None) -> tuple[nn.Module, int]:
    """A nonlinearity, and how many times as many outputs as inputs it has.

    Args:
        name: Which.
        p: Of AID; None for 0.9.
    """
    if name == "aid":
        return Aid(0.9 if p is None else p), 1
    return {"tanh": nn.Tanh, "relu": nn.ReLU, "crelu": CRelu}[name](), 2 if name == "crelu" else 1


def apply_inserted_normalization(block: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
    """The forward hook of a block that has an `InsertedNormalization`."""
    normalized: torch.Tensor = block.get_submodule(INSERTED_NORMALIZATION)(output)
    return normalized


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


class PreActBlock(nn.Module):
    """The residual block of PreAct-ResNet-18: conv(relu(norm(conv(relu(norm(x)))))) + shortcut.

    He et al. 2016, https://arxiv.org/abs/1603.05027. The shortcut is x itself if the shapes agree, otherwise a 1x1
    convolution of relu(norm(x)).

    Args:
        channels_in: Channels of x.
        channels: Channels of the output.
        stride: Of the first convolution and of the shortcut.
        activated: Whether x comes from a norm and ReLU, so that the block begins with its convolution.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, *, activated: bool = False) -> None:
        super().__init__()
        self.norm1: nn.Module = nn.Identity() if activated else nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Conv2d(channels_in, channels, kernel_size=1, stride=stride, bias=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps (n, channels_in, height, width) to (n, channels, height / stride, width / stride)."""
        active = F.relu(self.norm1(inputs))
        hidden = self.conv2(F.relu(self.norm2(self.conv1(active))))
        total: torch.Tensor = hidden + (inputs if self.shortcut is None else self.shortcut(active))
        return total


class Patches(nn.Module):
    """Cuts an image into square patches, maps each linearly to a token, and adds the token's learned position."""

    def __init__(self, channels: int, patch: int, width: int, tokens: int) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)
        self.position = nn.Parameter(torch.empty(tokens, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the positions with the usual small deviation; the embedding draws its own weights."""
        nn.init.normal_(self.position, std=0.02)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps (n, channels, height, width) to (n, tokens, width)."""
        tokens: torch.Tensor = self.embedding(inputs).flatten(2).transpose(1, 2) + self.position
        return tokens


class MeanOverTokens(nn.Module):
    """The mean of a sample's tokens."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps (n, tokens, width) to (n, width)."""
        return inputs.mean(dim=1)


def norm_layer(norm: Norm, channels: int, *, flat: bool = False) -> nn.Module:
    """A norm for images of so many channels, or for flat features.

    "layer" is layer normalisation over all channels and pixels of a sample, with a scale and shift for each channel.
    """
    if norm == "layer":
        return nn.GroupNorm(1, channels)
    if norm == "batch":
        return nn.BatchNorm1d(channels) if flat else nn.BatchNorm2d(channels)
    return nn.Identity()


def convolution_block(channels_in: int, channels: int, norm: Norm, *, pool: bool = False) -> nn.Module:
    """A 3x3 convolution that keeps height and width, norm, ReLU, and if asked for 2x2 max-pooling; see `pooled`."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, kernel_size=3, padding=1),
        norm_layer(norm, channels),
        nn.ReLU(),
        *([nn.MaxPool2d(2, ceil_mode=True)] if pool else []),
    )


def pooled(side: int) -> int:
    """Height or width after a pooling of `convolution_block`: half, rounded up, so that any image size fits."""
    return -(-side // 2)


def initialize(network: Network, init: Init) -> Network:
    """Draws the weights of all convolutions and linear layers anew, sets their biases to zero, and returns the network.

    "he" is He normal with fan in, "xavier" Xavier uniform; "default" changes nothing.
    """
    if init == "default":
        return network
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            if init == "he":
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network


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
