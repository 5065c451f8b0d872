"""ResNet-18 in the papers' variants."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from warmstart_sim.registry import MODELS


@MODELS.register("resnet18", "trains_all")
def resnet18(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    width: Annotated[int, Field(ge=1)] = 64,
    stem: Literal["cifar", "cifar_maxpool", "imagenet"] = "cifar",
) -> Any:
    """ResNet-18: a stem, four layers of two residual blocks, global average pooling, a linear head.

    "ResNet-18 for CIFAR" means two things in the papers' code, so the stem is an option. Each stem uses the
    initialisation of the corresponding code, because the noise of shrink-perturb is a scaled fresh network:

    | stem            | first convolution | max-pooling | initial convolutions       | code                        |
    |-----------------|-------------------|-------------|----------------------------|-----------------------------|
    | `cifar`         | 3x3, stride 1     | none        | PyTorch's default          | Ash & Adams 2020 (width 16) |
    | `cifar_maxpool` | 3x3, stride 1     | 3x3/2       | normal, std sqrt(2/fan_out)| Kireev et al. 2021          |
    | `imagenet`      | 7x7, stride 2     | 3x3/2       | normal, std sqrt(2/fan_out)| torchvision, He et al. 2016 |

    For 3x32x32 inputs and ten classes it has 701,466 parameters at width 16 with the `cifar` stem, and 11,173,962 at
    width 64 with either of the first two stems, of which `cifar_maxpool` needs four times fewer FLOPs.

    Args:
        input_shape: (channels, height, width); any image size.
        classes: The number of logits.
        width: Channels of the first layer; the four layers have width x {1, 2, 4, 8}.
        stem: The layers before the first residual layer.

    Returns:
        A module with blocks stem, layer1, layer2, layer3, layer4 and the head `head`.

    Raises:
        WarmstartError: The inputs are not images.
    """
    from torch import nn

    from warmstart_sim.models._layers import BasicBlock, GlobalAveragePool, Network, image_shape

    def layer(channels_in: int, channels: int, stride: int) -> nn.Module:
        return nn.Sequential(BasicBlock(channels_in, channels, stride), BasicBlock(channels, channels, 1))

    channels, _, _ = image_shape(input_shape, "resnet18")
    kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
    first = [
        nn.Conv2d(channels, width, kernel_size=kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    if stem != "cifar":
        first.append(nn.MaxPool2d(kernel_size=3, stride=2, padding=1))
    network = Network(
        stem=nn.Sequential(*first),
        layer1=layer(width, width, 1),
        layer2=layer(width, 2 * width, 2),
        layer3=layer(2 * width, 4 * width, 2),
        layer4=layer(4 * width, 8 * width, 2),
        pool=nn.Sequential(GlobalAveragePool(), nn.Flatten()),
        head=nn.Linear(8 * width, classes),
    )
    if stem != "cifar":
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
