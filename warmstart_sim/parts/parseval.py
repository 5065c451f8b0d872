"""Parseval regularisation: weight matrices are kept near orthogonal, as a term of the loss."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from warmstart_sim.registry import PARTS
from warmstart_sim.types import Batch, Hooks, RoundContext, StateDict

if TYPE_CHECKING:
    import torch


@PARTS.register("parseval", "ignores_previous", "plain_loss_term", changes="the loss")
@dataclass(frozen=True, kw_only=True)
class Parseval:
    """Parseval regularisation: adds strength times ||W W^T - I||_F^2 of every weight matrix to the loss.

    loss <- loss + strength * (sum_W ||W W^T - I||_F^2 + sum_gamma (gamma^2 - 1)^2), over the weights with two
    dimensions or more that train, each as a matrix with an output unit in each row (a convolution's row holds all its
    inputs and kernel positions), and the scales gamma of normalisation layers. Of W with more rows than columns, W W^T
    cannot be I, and the term stays above zero.

    Chung et al. 2024, https://arxiv.org/abs/2412.07224.

    Attributes:
        strength: At least 0. Default 1e-3.
    """

    strength: Annotated[float, Field(ge=0)] = 1e-3

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> Hooks:
        """The hooks of a round: the penalty, unless it is zero."""
        scales = frozenset(name for name in context.layout.norm_affine if name.endswith("weight"))
        return Hooks(loss_term=ParsevalTerm(self.strength, scales) if self.strength else None)


@dataclasses.dataclass(frozen=True)
class ParsevalTerm:
    """The loss term. Terms of equal values are equal, so that a captured step stays valid across rounds."""

    strength: float
    scales: frozenset[str]

    def __call__(self, batch: Batch, logits: torch.Tensor) -> torch.Tensor:
        """The penalty on the parameters of the model that train."""
        import torch

        assert batch.model is not None
        trained = [(name, each) for name, each in batch.model.named_parameters() if each.requires_grad]
        terms = [distance_from_orthogonal(each) for _, each in trained if each.ndim > 1]
        terms += [(each.square() - 1).square().sum() for name, each in trained if name in self.scales]
        return self.strength * torch.stack(terms).sum()


def distance_from_orthogonal(weight: torch.Tensor) -> torch.Tensor:
    """||W W^T - I||_F^2 of a weight (out, in, ...), whose rows are its output units.

    >>> import torch
    >>> distance_from_orthogonal(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    tensor(9.)
    """
    import torch

    rows = weight.flatten(1)
    return (rows @ rows.T - torch.eye(len(rows), device=rows.device)).square().sum()
