"""Shrink and perturb (Ash & Adams 2020, section 4): shrink the learned weights and add noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from warmstart_sim.registry import STRATEGIES
from warmstart_sim.types import Layout, RoundContext, StateDict

if TYPE_CHECKING:
    import torch


@STRATEGIES.register("shrink_perturb")
@dataclass(frozen=True, config=ConfigDict(validate_by_name=True, validate_by_alias=True, allow_inf_nan=False))
class ShrinkPerturb:
    """Shrink the last weights towards zero and add a little fresh noise.

    theta <- lambda * theta_previous + sigma * theta_noise (Ash & Adams 2020, section 4).

    A coefficient of zero drops its term, so that `lambda=0` forgets weights that have become NaN. `lambda=1,
    sigma=0` is exactly warm start, and `lambda=0, sigma=1` exactly random init. Note that `lambda=0, sigma=0.01` is not
    random init: it is an initialisation a hundred times too small.

    Attributes:
        lam: lambda in [0, 1], how much of the last weights remains. Default 0.6.
        sigma: The scale of the noise, at least 0. Default 0.01.
        noise: What the noise is: a "fresh" initialisation (the paper's; default), "gaussian" with deviation 1,
            "scaled": gaussian with the deviation of each tensor of the last weights, as PhysicsNeMo has it; or
            "initial", the initialisation of round 0: with `lambda=0.2, sigma=0.8` it is the shrinking towards the start
            of Hare & Tortoise (Lee et al. 2024) and FIRE, (1 - a) theta + a theta_0 with a = 0.8.
        parameters: What is shrunk and perturbed: "all" (default), only the "head", or only the "body". The rest stays
            as the last round left it (the paper's Figure 14 changes the last layer only).
        buffers: BatchNorm's running statistics: "keep" (default) or "fresh", as in the paper's code. With `lambda=0`
            they are always fresh.
        affine: Scale and shift of normalisation layers: "shrink" as all other parameters (default, as in the paper's
            code), "keep", or "fresh".

    Raises:
        pydantic.ValidationError: A value outside its range (a `ValueError`).

    >>> import torch
    >>> from warmstart_sim.types import Layout, RoundContext
    >>> layout = Layout(parameters=frozenset({"w"}), norm_affine=frozenset(), blocks=(), head="head")
    >>> context = RoundContext(round=1, layout=layout, generator=lambda purpose: torch.Generator())
    >>> ShrinkPerturb(lam=0.5, sigma=0.25)({"w": torch.tensor(4.0)}, {"w": torch.tensor(1.0)}, context)
    {'w': tensor(2.2500)}
    """

    lam: Annotated[float, Field(alias="lambda", ge=0, le=1)] = 0.6
    sigma: Annotated[float, Field(ge=0)] = 0.01
    noise: Literal["fresh", "gaussian", "scaled", "initial"] = "fresh"
    parameters: Literal["all", "head", "body"] = "all"
    buffers: Literal["keep", "fresh"] = "keep"
    affine: Literal["shrink", "keep", "fresh"] = "shrink"

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext) -> StateDict:
        """The shrunk and perturbed state."""
        layout = context.layout
        generator = context.generator("noise")
        buffers = "fresh" if self.lam == 0 else self.buffers
        towards = context.initial() if self.noise == "initial" else fresh

        perturbed, start = self.perturbed(layout), {}
        for name in fresh:
            if name in perturbed:
                noise = self._noise(previous[name], towards[name], generator)
                start[name] = shrink_perturb(previous[name], noise, self.lam, self.sigma)
            elif not self._takes_part(layout, name):
                start[name] = previous[name]
            else:
                choice = self.affine if name in layout.parameters else buffers
                start[name] = fresh[name] if choice == "fresh" else previous[name]
        return start

    def perturbed(self, layout: Layout) -> frozenset[str]:
        """The parameters that are shrunk and perturbed."""
        spared = frozenset() if self.affine == "shrink" else layout.norm_affine
        return frozenset(name for name in layout.parameters - spared if self._takes_part(layout, name))

    def _takes_part(self, layout: Layout, name: str) -> bool:
        return self.parameters == "all" or layout.in_head(name) == (self.parameters == "head")

    def _noise(self, previous: torch.Tensor, towards: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if self.noise in ("fresh", "initial") or self.sigma == 0:  # with sigma = 0 nothing is drawn
            return towards
        gaussian = _gaussian_like(towards, generator)
        return gaussian if self.noise == "gaussian" else _deviation(previous) * gaussian


def shrink_perturb(previous: torch.Tensor, noise: torch.Tensor, lam: float, sigma: float) -> torch.Tensor:
    """Lambda * previous + sigma * noise for one tensor, where a zero coefficient drops its term (0 * NaN is 0 here)."""
    if lam == 0:
        return sigma * noise if sigma else noise.new_zeros(noise.shape)
    return lam * previous + sigma * noise if sigma else lam * previous


def _gaussian_like(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    # Drawn on the CPU, so that every device sees the same noise.
    return tensor.new_empty(tensor.shape, device="cpu").normal_(generator=generator).to(tensor.device)


def _deviation(tensor: torch.Tensor) -> torch.Tensor:
    """The standard deviation of a tensor's elements (over n, not n - 1): 0 for a scalar, where n - 1 gives NaN."""
    return tensor.std(correction=0) if tensor.numel() else tensor.new_zeros(())
