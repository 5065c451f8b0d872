"""Models as users bring them; each has a plain twin: how a loop of one's own would build and call it."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

Shape = tuple[int, ...]


def body() -> nn.Sequential:
    """Maps (n, 1, 8, 8) to (n, 12)."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2), nn.BatchNorm2d(3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    )


class Classifier(nn.Module):
    """Its forward pass returns the logits; others return them in something else."""

    def __init__(self, input_shape: Shape, classes: int) -> None:
        super().__init__()
        self.body, self.head = body(), nn.Linear(12, classes)

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.head(self.body(inputs))


class InDict(Classifier):
    def forward(self, inputs: torch.Tensor) -> Any:
        features = self.body(inputs)
        return {"features": features, "logits": self.head(features)}


@dataclass
class Output:
    logits: torch.Tensor
    features: torch.Tensor


class InObject(Classifier):
    def forward(self, inputs: torch.Tensor) -> Any:
        features = self.body(inputs)
        return Output(self.head(features), features)


class InTuple(Classifier):
    def forward(self, inputs: torch.Tensor) -> Any:
        features = self.body(inputs)
        return self.head(features), features


Logits = namedtuple("Logits", ["logits", "auxiliary"])


class InTrainingOnly(Classifier):
    """As torchvision's Inception: with an auxiliary output in training mode, a tensor otherwise."""

    def forward(self, inputs: torch.Tensor) -> Any:
        logits = super().forward(inputs)
        return Logits(logits, 2 * logits) if self.training else logits


class TwoOutputs(Classifier):
    def forward(self, inputs: torch.Tensor) -> Any:
        logits = super().forward(inputs)
        return logits, logits


def lazy(input_shape: Shape, classes: int) -> nn.Module:
    layers = nn.LazyConv2d(3, 3, stride=2), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(classes)
    return nn.Sequential(*layers)


def lazy_twin(input_shape: Shape, classes: int) -> nn.Module:
    layers = nn.Conv2d(1, 3, 3, stride=2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, classes)
    return nn.Sequential(*layers)


def float64(input_shape: Shape, classes: int) -> nn.Module:
    return Classifier(input_shape, classes).double()


def bfloat16(input_shape: Shape, classes: int) -> nn.Module:
    return Classifier(input_shape, classes).bfloat16()


class FrozenResNet(nn.Module):
    """A published architecture that does not train, and a head that does."""

    def __init__(self, input_shape: Shape, classes: int) -> None:
        super().__init__()
        self.backbone = torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1])
        self.backbone.conv1 = nn.Conv2d(1, 64, 3)
        self.backbone.fc = nn.Identity()
        self.backbone.requires_grad_(False)
        self.head = nn.Linear(512, classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(inputs))


class WithoutGradient(Classifier):
    """The body computes under `torch.no_grad()`; its parameters have `requires_grad`."""

    def forward(self, inputs: torch.Tensor) -> Any:
        with torch.no_grad():
            features = self.body(inputs)
        return self.head(features)


class SharedBody(Classifier):
    """A frozen body under two names, a tied weight that trains, and a layer that nothing uses."""

    def __init__(self, input_shape: Shape, classes: int) -> None:
        super().__init__(input_shape, classes)
        self.body.requires_grad_(False)
        self.body_again = self.body
        self.idle = nn.Linear(3, 3)
        self.first, self.second = nn.Linear(12, 12), nn.Linear(12, 12)
        self.second.weight = self.first.weight

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.head(self.second(self.first(self.body_again(inputs))))


@dataclass(frozen=True)
class Case:
    """A model, and how a plain loop would do it.

    Attributes:
        twin: Builds the same model where a plain loop would build another.
        logits: Takes them from what the twin returns.
        dtype: Of the inputs.
        evaluating: The twin's module that stays in evaluation mode, as one keeps a frozen BatchNorm.
    """

    twin: Callable[[Shape, int], nn.Module]
    logits: Callable[[Any], torch.Tensor] = lambda output: output
    dtype: torch.dtype = torch.float32
    evaluating: str = ""


CASES = {
    "lazy": Case(lazy_twin),
    "InDict": Case(InDict, lambda output: output["logits"]),
    "InObject": Case(InObject, lambda output: output.logits),
    "InTuple": Case(InTuple, lambda output: output[0]),
    "InTrainingOnly": Case(InTrainingOnly, lambda output: output.logits),
    "float64": Case(float64, dtype=torch.float64),
    "bfloat16": Case(bfloat16, dtype=torch.bfloat16),
    "FrozenResNet": Case(FrozenResNet, evaluating="backbone"),
    "WithoutGradient": Case(WithoutGradient),
    "SharedBody": Case(SharedBody, evaluating="body"),
}
