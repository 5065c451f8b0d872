"""Adversarial training with the fast gradient sign method (Goodfellow et al. 2015)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import PARTS
from warmstart_sim.types import Batch, Hooks, RoundContext, StateDict

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


@PARTS.register("adversarial", "ignores_previous", changes="the loss")
@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """Adversarial training: a share of the loss is taken at inputs moved by epsilon in the direction that raises it.

    loss <- (1 - weight) CE(x) + weight CE(x + epsilon sign(grad_x CE(x))), with the cross-entropy CE of the batch's
    labels (Goodfellow et al. 2015, https://arxiv.org/abs/1412.6572, equation in section 6). The direction counts as a
    constant: no gradient flows through it.

    `epsilon` is in the units of the data before they are normalised: pixels lie in [0, 1], so that 8/255 moves each by
    8 of 256 levels. Moved pixels are not clipped, as in the paper. Augmented images are moved after the augmentation.

    A step needs two more forward and two more backward passes, and costs nearly three times as much. In these passes
    BatchNorm uses the statistics of the batch that it sees, and its running statistics stay those of clean batches, as
    accuracies are measured on clean inputs. Dropout draws a new mask in every pass. Such steps are never stacked.

    Ash & Adams 2020 train adversarially with "penalty sizes" of 1e-1 to 1e-4 (Table 3). The text does not say whether
    they are `epsilon` or the weight of the second term, nor in which units, and their public code lacks this.

    Attributes:
        epsilon: The step, at least 0.
        weight: The share of the adversarial loss, in [0, 1]. Default 0.5, as in the paper.
    """

    epsilon: Annotated[float, Field(ge=0)]
    weight: Annotated[float, Field(ge=0, le=1)] = 0.5

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> Hooks:
        """The hooks of a round: the loss at moved inputs, unless it has no weight."""
        return Hooks(loss_term=AdversarialTerm(self.epsilon, self.weight) if self.weight else None)


@dataclasses.dataclass(frozen=True)
class AdversarialTerm:
    """The loss term. Terms of equal options are equal, so that a captured step stays valid across rounds."""

    epsilon: float
    weight: float

    def __call__(self, batch: Batch, logits: torch.Tensor) -> torch.Tensor:
        """What turns the clean loss into the mixture: weight * (adversarial loss - clean loss).

        Raises:
            WarmstartError: The inputs are tokens.
        """
        from torch.nn import functional as F

        if not batch.inputs.is_floating_point():
            raise WarmstartError("adversarial needs inputs that can move a little, such as pixels; texts cannot")
        assert batch.logits_of is not None
        moved = fast_gradient_sign(batch.logits_of, batch.inputs, batch.labels, self.epsilon)
        adversarial_loss = F.cross_entropy(batch.logits_of(moved), batch.labels)
        return self.weight * (adversarial_loss - F.cross_entropy(logits, batch.labels))


def fast_gradient_sign(
    logits_of: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor, labels: torch.Tensor, epsilon: float
) -> torch.Tensor:
    """The inputs, moved by epsilon * sign of the gradient of their mean cross-entropy; detached.

    Args:
        logits_of: From inputs to logits (n, classes).
        inputs: Where the gradient is taken, (n, ...); they are not changed.
        labels: Class indices (n,).
        epsilon: The step in every entry.
    """
    import torch
    from torch.nn import functional as F

    inputs = inputs.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits_of(inputs), labels), inputs)
    return inputs.detach() + epsilon * gradient.sign()
