"""The smallest margins on the training set (Alabdulmohsin et al. 2021, Figures 6, 10 and 11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import PROBES
from warmstart_sim.types import RoundContext

if TYPE_CHECKING:
    import torch

QUANTILES = (0, 25, 50, 75, 100)
BATCH = 512


@PROBES.register(
    "margins",
    "ignores_previous",
    columns={"margin_mean": "-1 to 1", **{f"margin_q{each}": "-1 to 1" for each in QUANTILES}},
    cost="a forward pass over the training set",
)
def margins(context: RoundContext, /, *, m: Annotated[int, Field(ge=1)] = 400) -> Mapping[str, float | None]:
    """The m smallest softmax margins on the training set: their mean and quantiles.

    margin_i = p_i[y_i] - max over k != y_i of p_i[k], with p_i = softmax(f(x_i; theta)), in evaluation mode on clean
    inputs. It lies in [-1, 1] and is above 0 for samples that are classified correctly. Source: Alabdulmohsin et al.
    2021, section 4.1 and Figure 6.

    Args:
        context: The round's context.
        m: How many of the smallest margins; all if the training set is smaller. Default 400.

    Columns:
        `margin_mean`; `margin_q0` (the smallest), `margin_q25`, `margin_q50`, `margin_q75` and `margin_q100`.

    Raises:
        WarmstartError: The model has a single class.
    """
    import torch

    assert context.weights is not None
    found = []
    for start in range(0, len(context.train), BATCH):
        inputs, labels = context.samples(context.train[start : start + BATCH])
        found.append(softmax_margins(context.forward(context.weights, inputs), labels).flatten())
    smallest = torch.cat(found).sort().values[:m]
    quantiles = np.percentile(smallest.cpu().numpy(), QUANTILES)
    named = {f"margin_q{each}": float(value) for each, value in zip(QUANTILES, quantiles, strict=True)}
    return {"margin_mean": smallest.mean().item(), **named}


def softmax_margins(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The probability of the label minus the largest other one, float64 (n, ...), for logits (n, classes, ...).

    >>> import torch
    >>> softmax_margins(torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.tensor([1])).round(decimals=4)
    tensor([-0.5000], dtype=torch.float64)
    """
    if logits.shape[1] < 2:
        raise WarmstartError("probe margins: a margin needs at least two classes, and this model has one")
    p, column = logits.double().softmax(1), labels[:, None]
    return p.gather(1, column)[:, 0] - p.scatter(1, column, -1.0).amax(1)
