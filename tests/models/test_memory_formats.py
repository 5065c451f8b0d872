"""Backward passes of channels-last images: no operator reads two memory formats, and the numbers are torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tests.models.test_models_contract import make
from warmstart_sim.models import _layers
from warmstart_sim.registry import MODELS

NAMES = [name for name in MODELS.names() if not MODELS.has_trait(name, "tokens")]
UNMIXED = ("logistic_regression", "mlp", "vgg16", "vit")  # in torch too


def formats(tensors: Any) -> set[bool]:
    """Whether each of the images among these is channels-last; images whose formats are the same are left out."""
    images = [each for each in tensors if isinstance(each, torch.Tensor) and each.ndim == 4]
    both = [(each.is_contiguous(), each.is_contiguous(memory_format=torch.channels_last)) for each in images]
    return {last for contiguous, last in both if contiguous != last}


class FormatsOfOperators(TorchDispatchMode):
    """Lists the operators of several images in different formats."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed: list[str] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if len(formats(args)) > 1 and "copy" not in str(operator):
            self.mixed.append(str(operator))
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", NAMES)
def test_images_and_their_gradients_have_one_format(name, monkeypatch):
    torch.manual_seed(0)
    model = make(name, (3, 32, 32))
    model = model.to(memory_format=torch.channels_last).train()
    inputs = torch.randn(4, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    gradients = []
    for mixed in (False, True):
        torch.manual_seed(1)  # dropout
        model.zero_grad()
        with FormatsOfOperators() as seen:
            F.cross_entropy(model(inputs), torch.arange(4)).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        assert bool(seen.mixed) == (mixed and name not in UNMIXED)
        monkeypatch.setattr(_layers, "keep_format", lambda images: images)  # the second time as torch does it
    mine, torchs = (torch.cat([each.flatten() for each in every]) for every in gradients)
    if name == "mobilenet_v2":  # BatchNorm's backward pass had two formats, and summed in another order
        assert (mine - torchs).norm() <= 1e-5 * torchs.norm()
    else:
        assert torch.equal(mine, torchs)
