"""How much noise on the weights changes accuracy and loss (Alabdulmohsin et al. 2021, Figures 5 and 12)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from warmstart_sim.registry import PROBES
from warmstart_sim.types import RoundContext


@PROBES.register(
    "sharpness",
    "ignores_previous",
    columns={"sharpness_accuracy_{deviation}": "fraction", "sharpness_loss_{deviation}": "cross-entropy"},
    cost="1 + deviations x draws passes over the training set",
)
def sharpness(
    context: RoundContext,
    /,
    *,
    deviations: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.001, 0.01, 0.1),
    draws: Annotated[int, Field(ge=1)] = 3,
) -> Mapping[str, float | None]:
    """Change of train accuracy and loss when Gaussian noise is added to all parameters; near 0 in a flat minimum.

    change = mean over draws of A(theta + s eps) - A(theta), eps ~ N(0, I), for every deviation s, with A the accuracy
    (or the mean cross-entropy) on the whole training set in evaluation mode. The draws of eps are the same for all
    deviations and throughout a round. Buffers get no noise. Source: Alabdulmohsin et al. 2021, section 4.2 and Figure
    5, which does not say which deviations.

    Args:
        context: The round's context.
        deviations: The standard deviations s, above 0. Default 0.001, 0.01 and 0.1.
        draws: How many draws of eps. Default 3.

    Columns:
        `sharpness_accuracy_S` and `sharpness_loss_S` for every deviation, with _ for its point: `sharpness_loss_0_01`.
    """
    import torch

    from warmstart_sim.probes._vectors import parameters

    assert context.weights is not None
    weights = parameters(context.weights, context.layout)
    clean = np.array(context.evaluate(context.weights, "train"))
    generator = context.generator("sharpness")
    changes = np.zeros((len(deviations), 2))
    for _ in range(draws):
        noise = {
            name: torch.randn(tensor.shape, generator=generator).to(tensor.device) for name, tensor in weights.items()
        }
        for row, deviation in enumerate(deviations):
            noisy = {name: tensor + deviation * noise[name] for name, tensor in weights.items()}
            changes[row] += (np.array(context.evaluate({**context.weights, **noisy}, "train")) - clean) / draws
    columns: dict[str, float | None] = {}
    for deviation, (accuracy, loss) in zip(deviations, changes.tolist(), strict=True):
        suffix = f"{deviation:g}".replace(".", "_")
        columns |= {f"sharpness_accuracy_{suffix}": accuracy, f"sharpness_loss_{suffix}": loss}
    return columns
