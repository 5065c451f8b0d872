"""Direction-aware shrinking (DASH): shrink the weights that point away from where the gradient descends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from warmstart_sim.registry import STRATEGIES
from warmstart_sim.types import RoundContext, StateDict

if TYPE_CHECKING:
    import torch


@STRATEGIES.register("dash")
@dataclass(frozen=True, config=ConfigDict(validate_by_name=True, validate_by_alias=True, allow_inf_nan=False))
class Dash:
    """DASH: shrink each unit's weights by the cosine between them and the negative gradient.

    1. G <- (1 - alpha) G + alpha (-grad L(chunk)), from G = 0, over all chunks so far, the oldest first, at
       theta_previous and in evaluation mode.
    2. W_u <- clamp(cos(G_u, W_u), lambda, 1) W_u for each unit u.

    A unit is a slice of a convolution between one output and one input channel (k x k numbers), an output row of a
    linear layer, or a whole bias, as in the authors' code; here also the whole scale or shift of a normalisation layer.
    A unit whose gradient or weights are zero is shrunk by lambda. Buffers are kept.

    Shin et al. 2024, https://arxiv.org/abs/2410.23495, Algorithm 1.

    Attributes:
        alpha: The weight of a newer chunk, in (0, 1]. Default 0.3.
        lam: lambda in [0, 1], the least that remains of a unit. Default 0.3. With 1 it is exactly warm start.
        samples: How many samples of each chunk the gradient is over, drawn at random. Default 128, the paper's batch.
    """

    alpha: Annotated[float, Field(gt=0, le=1)] = 0.3
    lam: Annotated[float, Field(alias="lambda", ge=0, le=1)] = 0.3
    samples: Annotated[int, Field(ge=1)] = 128

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext) -> StateDict:
        """The shrunk state."""
        if self.lam == 1:
            return previous
        direction = self._direction(previous, context)
        shrunk = {name: shrink(previous[name], each, self.lam) for name, each in direction.items()}
        return {**previous, **shrunk}

    def _direction(self, weights: StateDict, context: RoundContext) -> dict[str, torch.Tensor]:
        """The running mean of the negative gradients, G."""
        mean: dict[str, torch.Tensor] = {}
        for k, chunk in enumerate(context.chunks or (context.train,)):
            gradients = context.gradients(weights, context.some(chunk, self.samples, f"dash chunk {k}"))
            mean = {name: (1 - self.alpha) * mean.get(name, 0) - self.alpha * each for name, each in gradients.items()}
        return mean


def shrink(weight: torch.Tensor, direction: torch.Tensor, lam: float) -> torch.Tensor:
    """Each unit of a tensor times its cosine with the direction, between lambda and 1.

    >>> import torch
    >>> shrink(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), lam=0.25)
    tensor([[1.8000, 2.4000],
            [0.2500, 0.0000]])
    """
    from torch.nn import functional as F

    units = weight.shape[: weight.ndim - 1] if weight.ndim < 3 else weight.shape[:2]
    slices = (*units, -1)  # reshape, unlike a view of contiguous(), puts channels-last tensors in logical order
    cosines = F.cosine_similarity(weight.reshape(slices), direction.reshape(slices), dim=-1).clamp(lam, 1)
    return (cosines[..., None] * weight.reshape(slices)).reshape(weight.shape)
