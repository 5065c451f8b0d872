"""Counts the floating-point operations of training, a cost that does not depend on what else the machine does."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from warmstart_sim.training.starts import freeze_all_but

SAMPLES = 2  # BatchNorm on flat features cannot train on one


def training_flops(model: nn.Module, inputs: torch.Tensor, trainable: frozenset[str] | None = None) -> int:
    """FLOPs of one training step for each sample: forward and backward of matrix products and convolutions.

    A multiply-add counts as two, as in `torch.utils.flop_counter`. The model is not changed. Padding is counted: pass
    texts of the mean length.

    Args:
        model: On any device.
        inputs: At least two normalised inputs of the right shape.
        trainable: Names of the parameters that train; the others need no gradient. None: those with `requires_grad`.
    """
    replica = copy.deepcopy(model).train()
    if trainable is not None:
        freeze_all_but(replica, None, trainable)
    with plain_kernels(), torch.enable_grad(), FlopCounterMode(display=False) as counter:
        logits = replica(inputs[:SAMPLES])
        F.cross_entropy(logits, torch.zeros_like(logits[:, 0], dtype=torch.int64)).backward()
    return int(counter.get_total_flops()) // SAMPLES


@contextlib.contextmanager
def plain_kernels() -> Iterator[None]:
    """Turns fused recurrent kernels off.

    A FLOP counter does not see their matrix products, and those of cuDNN have no backward pass in evaluation mode.
    `torch.backends.cudnn.flags` would do the same, but fails where `fp32_precision` is set.
    """
    libraries: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    before = [library.enabled for library in libraries]
    for library in libraries:
        library.enabled = False
    try:
        yield
    finally:
        for library, enabled in zip(libraries, before, strict=True):
            library.enabled = enabled
