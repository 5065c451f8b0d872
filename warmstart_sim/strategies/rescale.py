"""Rescale every layer to the norm that it had at initialisation (Alabdulmohsin et al. 2021, Appendix A)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic.dataclasses import dataclass

from warmstart_sim.registry import STRATEGIES
from warmstart_sim.strategies.subsets import chosen
from warmstart_sim.types import RoundContext, StateDict


@STRATEGIES.register("rescale")
@dataclass(frozen=True)
class Rescale:
    """Start from the last weights, with each layer scaled back to its norm at initialisation.

    W <- W_previous ||W_0|| / ||W_previous|| for each weight tensor W, where W_0 is the initialisation of round 0.
    Everything else is kept.

    Attributes:
        parameters: What is rescaled: "weights" (default), the tensors with more than one dimension, or "all": biases
            and normalisation layers, too. A tensor that began as zeros, as some biases do, then becomes zeros again.
    """

    parameters: Literal["weights", "all"] = "weights"

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext) -> StateDict:
        """The rescaled state."""
        return rescaled(previous, chosen(context.layout, previous, self.parameters), context.initial_norms)


def rescaled(state: StateDict, names: Iterable[str], norms: Mapping[str, float]) -> StateDict:
    """`state`, with the L2 norms that `norms` has for these tensors; tensors of zeros stay.

    >>> import torch
    >>> rescaled({"w": torch.tensor([3.0, 4.0])}, ["w"], {"w": 10.0})
    {'w': tensor([6., 8.])}
    """
    now = {name: state[name].norm().item() for name in names}
    return {**state, **{name: state[name] * (norms[name] / norm) for name, norm in now.items() if norm > 0}}
