"""Multinomial logistic regression."""

from __future__ import annotations

import math
from typing import Any

from warmstart_sim.registry import MODELS


@MODELS.register("logistic_regression", "trains_all", "no_hidden_units")
def logistic_regression(input_shape: tuple[int, ...], classes: int) -> Any:
    """Logistic regression: one linear layer on flattened inputs.

    Its loss is convex, so every initialisation leads to the same solution if training converges. It is the control in
    the papers' tables.

    Args:
        input_shape: Any shape; inputs are flattened.
        classes: The number of logits.

    Returns:
        A module without blocks and with the head `head`.
    """
    from torch import nn

    from warmstart_sim.models._layers import Network

    return Network(flatten=nn.Flatten(), head=nn.Linear(math.prod(input_shape), classes))
