"""Self-distillation: the model at the end of the last round teaches that of this one (Zaidi et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import PARTS
from warmstart_sim.types import Batch, Hooks, RoundContext, StateDict

if TYPE_CHECKING:
    import torch

CHUNK = 500  # training samples in one forward pass of the teacher when its logits are cached


@PARTS.register("self_distillation", "plain_loss_term", changes="the loss")
@dataclass(frozen=True, kw_only=True)
class SelfDistillation:
    """Self-distillation: adds beta times the KL divergence of the student from the teacher to the loss.

    loss <- loss + beta tau^2 KL(teacher || student), the mean over the batch of sum_k p_k (log p_k - log q_k), where
    p = softmax(teacher's logits / tau) and q = softmax(student's logits / tau) (Zaidi et al. 2022, equation 1, which
    has tau = 1). The factor tau^2 keeps the size of the gradient (Hinton et al. 2015, https://arxiv.org/abs/1503.02531).

    The teacher is the model at the end of the last round, in evaluation mode and in float32; no gradient flows through
    it. The first round has none. Its logits of clean training samples are computed once, before the round's first step.
    Where a part transforms the inputs, the teacher sees the student's inputs, in a forward pass of its own in every
    step.

    Attributes:
        beta: At least 0. Default 1, as in the paper on CIFAR; 2 on Tiny ImageNet.
        temperature: tau, above 0. Default 1.
        teacher_inputs: "as_student" (default): the teacher sees transformed inputs where the student does; "clean": it
            always sees clean ones, whose logits are cached.
    """

    beta: Annotated[float, Field(ge=0)] = 1.0
    temperature: Annotated[float, Field(gt=0)] = 1.0
    teacher_inputs: Literal["as_student", "clean"] = "as_student"

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> Hooks:
        """The hooks of a round: the loss term, unless there is no last round or the term has no weight.

        Raises:
            WarmstartError: The last round's model has other classes.
        """
        if context.previous is None or self.beta == 0:
            return Hooks()
        _check_classes(context.previous, fresh, context)
        return Hooks(loss_term=DistillationTerm(self, context))


def _check_classes(teacher: StateDict, fresh: StateDict, context: RoundContext) -> None:
    """Makes sure that the teacher's head was trained on these classes; one for other classes is replaced by `fresh`."""
    head = [name for name in fresh if context.layout.in_head(name)]
    alike = all(teacher[name].shape == fresh[name].shape for name in head)
    if alike and not all(teacher[name].equal(fresh[name]) for name in head):
        return
    raise WarmstartError(
        "self_distillation: the teacher has other classes; the model that the round starts from must have been trained "
        "on those of the data, so leave the part out, or pre-train on a set with the same classes"
    )


class DistillationTerm:
    """The loss term of a round.

    Args:
        settings: beta, temperature and what the teacher sees.
        context: The round's; its `previous` holds the teacher's weights.
    """

    def __init__(self, settings: SelfDistillation, context: RoundContext) -> None:
        assert context.previous is not None
        self._settings = settings
        self._context = context
        self._teacher = context.previous
        self._cached: torch.Tensor | None = None

    def __call__(self, batch: Batch, logits: torch.Tensor) -> torch.Tensor:
        """Beta tau^2 KL(teacher || student)."""
        tau = self._settings.temperature
        divergence = kl_divergence(self._teacher_logits(batch) / tau, logits / tau)
        return self._settings.beta * tau**2 * divergence.mean()

    def _teacher_logits(self, batch: Batch) -> torch.Tensor:
        """The teacher's logits for a batch, (n, classes)."""
        follows_student = batch.transformed and self._settings.teacher_inputs == "as_student"
        if batch.index is None or follows_student:
            assert batch.model_inputs is not None
            return self._context.forward(self._teacher, batch.model_inputs)
        if self._cached is None:
            self._cached = cached_logits(self._teacher, self._context)
        return self._cached[batch.index]


def cached_logits(teacher: StateDict, context: RoundContext) -> torch.Tensor:
    """The teacher's logits for all of a round's training samples, at their index in the training set.

    Returns:
        (largest index + 1, classes); rows of samples that the round does not train on are zero.
    """
    import torch

    first, *others = (context.train[start : start + CHUNK] for start in range(0, len(context.train), CHUNK))
    found = context.forward(teacher, context.samples(first)[0])
    logits = found.new_zeros(int(context.train.max()) + 1, *found.shape[1:])
    logits[torch.from_numpy(first)] = found
    for indices in others:
        logits[torch.from_numpy(indices)] = context.forward(teacher, context.samples(indices)[0])
    return logits


def kl_divergence(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """KL(softmax(teacher) || softmax(student)) of each row of logits, in nats.

    >>> import torch
    >>> kl_divergence(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 2.0]]).log_softmax(1))
    tensor([0.0000, 0.4338])
    """
    from torch.nn import functional as F

    return F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="none", log_target=True).sum(1)
