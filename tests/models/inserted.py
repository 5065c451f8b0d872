"""Models with inserted normalisations that do something."""

import torch
from torch import nn

from warmstart_sim import models


def insert_drawn_normalization(model: nn.Module) -> nn.Module:
    """Inserts normalisations into a model, whose means and deviations are drawn from torch's default generator."""
    models.insert_normalization(model)
    for name, scalar in model.named_buffers():
        if "inserted" in name:
            scalar.copy_(torch.empty(()).uniform_(0.5, 2.0))
    return model
