"""Re-initialise a subset of the weights: random (WELSR), fixed (WELS), the smallest (DSD), the least salient (LURE).

Alabdulmohsin et al. 2021, equation 1: theta <- (1 - s) theta_previous + s theta_fresh with a mask s in {0, 1}^d.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from warmstart_sim.registry import STRATEGIES
from warmstart_sim.types import Layout, RoundContext, StateDict

if TYPE_CHECKING:
    import torch

Fraction = Annotated[float, Field(ge=0, le=1)]
Parameters = Literal["weights", "all"]
Within = Literal["layer", "network"]


@STRATEGIES.register("welsr")
@dataclass(frozen=True)
class Welsr:
    """Re-initialise a random 20 % of the weights, other ones in every round.

    theta <- (1 - s) theta_previous + s theta_fresh, where s selects `round(fraction * d)` of the d weights uniformly at
    random, anew in every round (Taha et al. 2021, as in Alabdulmohsin et al. 2021). Everything else is kept.

    Attributes:
        fraction: The share that is re-initialised, in [0, 1]. Default 0.2. With 0 it is warm start; with 1, and
            `parameters` "all", random init, buffers included.
        parameters: What s may select: "weights" (default), the tensors with more than one dimension, or "all": biases
            and normalisation layers, too.
    """

    fraction: Fraction = 0.2
    parameters: Parameters = "weights"

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext) -> StateDict:
        """The state with another random subset in each round."""
        names = chosen(context.layout, fresh, self.parameters)
        scores = random_scores(fresh, names, context.generator("subset"))
        return reinitialized(previous, fresh, context.layout, smallest(scores, self.fraction))


@STRATEGIES.register("wels")
@dataclass(frozen=True)
class Wels:
    """Re-initialise a random 20 % of the weights, the same ones in every round.

    theta <- (1 - s) theta_previous + s theta_fresh, where s selects `round(fraction * d)` of the d weights uniformly at
    random, once before training (Taha et al. 2021, as in Alabdulmohsin et al. 2021). Everything else is kept.

    Attributes:
        fraction: As in `Welsr`.
        parameters: As in `Welsr`.
    """

    fraction: Fraction = 0.2
    parameters: Parameters = "weights"

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext) -> StateDict:
        """The state with the same random subset in each round."""
        names = chosen(context.layout, fresh, self.parameters)
        scores = random_scores(fresh, names, context.generator("subset", 0))
        return reinitialized(previous, fresh, context.layout, smallest(scores, self.fraction))


@STRATEGIES.register("dsd")
@dataclass(frozen=True)
class Dsd:
    """Re-initialise the 20 % of the weights that are smallest in magnitude.

    theta <- (1 - s) theta_previous + s theta_fresh, where s selects the `round(fraction * d)` weights with the smallest
    absolute values (Han et al. 2017, in several rounds as in Alabdulmohsin et al. 2021). Everything else is kept.

    Attributes:
        fraction: As in `Welsr`.
        parameters: As in `Welsr`.
        within: "layer" (default): the smallest of each tensor; "network": the smallest of all together.
    """

    fraction: Fraction = 0.2
    parameters: Parameters = "weights"
    within: Within = "layer"

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext) -> StateDict:
        """The state with the smallest weights drawn anew."""
        magnitudes = {name: previous[name].abs() for name in chosen(context.layout, fresh, self.parameters)}
        return reinitialized(previous, fresh, context.layout, smallest_within(self.within, magnitudes, self.fraction))


@STRATEGIES.register("lure")
@dataclass(frozen=True)
class Lure:
    """Re-initialise the 20 % of the weights that matter least to the loss, by |gradient * weight|.

    theta <- (1 - s) theta_previous + s theta_fresh, where s selects the `round(fraction * d)` weights with the smallest
    |g w|, and g is the gradient of the loss at theta_previous (LURE: Ramkumar et al. 2023, "Learn, Unlearn and
    Relearn"; the score is that of SNIP, Lee et al. 2019). Everything else is kept.

    Attributes:
        fraction: As in `Welsr`.
        parameters: As in `Welsr`.
        within: "network" (default, as SNIP): the lowest of all tensors together; "layer": the lowest of each tensor.
        samples: How many of the round's training samples the gradient is over, drawn at random. Default 128.
    """

    fraction: Fraction = 0.2
    parameters: Parameters = "weights"
    within: Within = "network"
    samples: Annotated[int, Field(ge=1)] = 128

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext) -> StateDict:
        """The state with the least salient weights drawn anew."""
        gradients = context.gradients(previous, context.some(context.train, self.samples, "lure"))
        saliencies = {
            name: (gradients[name] * previous[name]).abs()
            for name in chosen(context.layout, fresh, self.parameters)
            if name in gradients  # of a tied parameter, one name
        }
        return reinitialized(previous, fresh, context.layout, smallest_within(self.within, saliencies, self.fraction))


def chosen(layout: Layout, state: StateDict, parameters: Parameters) -> list[str]:
    """Names of the parameters: "all", or the "weights", which have more than one dimension; in the state's order."""
    return [name for name in state if name in layout.parameters and (parameters == "all" or state[name].ndim > 1)]


def random_scores(state: StateDict, names: Iterable[str], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A uniform random number for each entry of these tensors, drawn on the CPU."""
    import torch

    return {name: torch.rand(state[name].shape, generator=generator).to(state[name].device) for name in names}


def smallest(scores: Mapping[str, torch.Tensor], fraction: float) -> dict[str, torch.Tensor]:
    """Masks of the `round(fraction * n)` smallest of the n scores in all tensors together.

    >>> import torch
    >>> smallest({"a": torch.tensor([3.0, 1.0]), "b": torch.tensor([[2.0], [4.0]])}, 0.5)
    {'a': tensor([False,  True]), 'b': tensor([[ True],
            [False]])}
    """
    import torch

    flat = torch.cat([each.flatten() for each in scores.values()])
    mask = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    mask[flat.argsort(stable=True)[: round(fraction * len(flat))]] = True
    parts = mask.split([each.numel() for each in scores.values()])
    return {name: part.view_as(scores[name]) for name, part in zip(scores, parts, strict=True)}


def smallest_within(within: Within, scores: Mapping[str, torch.Tensor], fraction: float) -> dict[str, torch.Tensor]:
    """Masks of the smallest scores of the whole network, or of each layer."""
    if within == "network":
        return smallest(scores, fraction)
    return {name: smallest({name: each}, fraction)[name] for name, each in scores.items()}


def reinitialized(
    previous: StateDict, fresh: StateDict, layout: Layout, masks: Mapping[str, torch.Tensor]
) -> StateDict:
    """`fresh` where a mask is true and `previous` elsewhere; buffers are kept unless every parameter is fresh."""
    import torch

    if all(name in masks and bool(masks[name].all()) for name in layout.parameters):
        return fresh
    return {
        name: torch.where(masks[name], fresh[name], previous[name]) if name in masks else previous[name]
        for name in fresh
    }
