"""A training step composed for a round: what the arm's parts bring, and the steps that were captured of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from warmstart_sim.training import part_state
from warmstart_sim.types import Hooks

Step = Callable[[torch.Tensor, int | None], None]  # the batch's indices, and the length to which its texts are cut
Shape = tuple[int, int | None, int]  # a batch's size, that length, and the number of steps on such batches in a row


@dataclass(eq=False)
class Composition:
    """A step composed for the hooks of a round, with the graphs that were captured of it.

    Attributes:
        hooks: The hooks.
        eager_step: Runs the step kernel by kernel.
        after_step: What follows each step.
        watch: Of the state that captured steps may read.
        capturable: Whether it can be captured, as far as is known.
        steps: The steps by the shape of their batch, captured where that is possible.
    """

    hooks: tuple[Hooks, ...]
    eager_step: Step
    after_step: list[Callable[[nn.Module, torch.optim.Optimizer], None]]
    watch: part_state.Watch
    capturable: bool = True
    steps: dict[Shape, Step] = field(default_factory=dict)


def same_hooks(hooks: Sequence[Hooks], others: Sequence[Hooks]) -> bool:
    """Whether they do the same to a step: equal functions, and the very same state."""
    return tuple(hooks) == tuple(others) and all(a.state is b.state for a, b in zip(hooks, others, strict=True))


def is_captured(hook: Hooks) -> bool:
    """Whether a captured step holds some of its functions; what follows a step is called after each replay."""
    return any((hook.transform, hook.loss_term, hook.attach, hook.before_step))
