"""FIRE: replace every weight matrix by a nearly orthogonal one close to it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from warmstart_sim.registry import STRATEGIES
from warmstart_sim.strategies.subsets import chosen
from warmstart_sim.types import RoundContext, StateDict

if TYPE_CHECKING:
    import torch


@STRATEGIES.register("fire")
@dataclass(frozen=True)
class Fire:
    """FIRE: orthogonalise each weight matrix by ten Newton-Schulz steps, and scale it.

    For each linear layer, and for each kernel position of a convolution, the matrix W (d_out, d_in) becomes

    1. X = W / ||W||_F, and ten times X <- 1.5 X - 0.5 X X^T X,
    2. W <- X sqrt(d_out / d_in) / (k_h k_w), with k_h k_w = 1 in a linear layer.

    The steps keep the singular vectors and bring the singular values towards 1. Each multiplies a small one by 1.5, so
    that ten do not finish those below about a fiftieth of ||W||_F, and zeros stay zeros. Biases, normalisation layers
    and buffers are kept. Of other weights with two dimensions (embeddings, recurrent layers) each is a matrix, too.

    FIRE (ICLR 2026).

    Attributes:
        steps: Newton-Schulz steps, at least 0. Default 10. With 0 and `scale` none, only the norm changes.
        scale: "fan" (default): as in step 2; "none": W <- X.
    """

    steps: Annotated[int, Field(ge=0)] = 10
    scale: Literal["fan", "none"] = "fan"

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext) -> StateDict:
        """The orthogonalised state."""
        weights = chosen(context.layout, previous, "weights")
        return {**previous, **{name: self.orthogonalized(previous[name]) for name in weights}}

    def orthogonalized(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight (d_out, d_in, *kernel) whose matrix at each kernel position is nearly orthogonal."""
        matrices = weight.flatten(2) if weight.ndim > 2 else weight[..., None]  # (d_out, d_in, positions)
        found = newton_schulz(matrices.permute(2, 0, 1), self.steps).permute(1, 2, 0)
        d_out, d_in, positions = matrices.shape
        scale = math.sqrt(d_out / d_in) / positions if self.scale == "fan" else 1.0
        return (scale * found).reshape(weight.shape).to(weight.dtype)


def newton_schulz(matrices: torch.Tensor, steps: int) -> torch.Tensor:
    """Matrices (..., m, n) with the same singular vectors, whose singular values come near 1; zeros stay zeros.

    >>> import torch
    >>> newton_schulz(torch.tensor([[2.0, 0.0], [0.0, -1.0]]), steps=10)
    tensor([[ 1.,  0.],
            [ 0., -1.]])
    """
    norms = matrices.norm(dim=(-2, -1), keepdim=True)
    matrices = matrices / norms.where(norms > 0, 1)
    for _ in range(steps):
        matrices = 1.5 * matrices - 0.5 * matrices @ matrices.mT @ matrices
    return matrices
