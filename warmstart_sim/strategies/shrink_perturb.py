"""Shrink and perturb (Ash & Adams 2020, section 4): shrink the learned weights and add noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from warmstart_sim.registry import STRATEGIES
from warmstart_sim.types import RoundContext, StateDict

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
        noise: What the noise is: a "fresh" initialisation (the paper's; default), or "gaussian" with deviation 1.
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
    noise: Literal["fresh", "gaussian"] = "fresh"
    parameters: Literal["all", "head", "body"] = "all"
    buffers: Literal["keep", "fresh"] = "keep"
    affine: Literal["shrink", "keep", "fresh"] = "shrink"

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext) -> StateDict:
        """The shrunk and perturbed state."""
        layout = context.layout
        generator = context.generator("noise")
        buffers = "fresh" if self.lam == 0 else self.buffers

        start = {}
        for name in fresh:
            if self.parameters != "all" and layout.in_head(name) != (self.parameters == "head"):
                start[name] = previous[name]
            elif name not in layout.parameters:
                start[name] = fresh[name] if buffers == "fresh" else previous[name]
            elif name in layout.norm_affine and self.affine != "shrink":
                start[name] = fresh[name] if self.affine == "fresh" else previous[name]
            else:
                noise = fresh[name] if self.noise == "fresh" else _gaussian_like(fresh[name], generator)
                start[name] = shrink_perturb(previous[name], noise, self.lam, self.sigma)
        return start


def shrink_perturb(previous: torch.Tensor, noise: torch.Tensor, lam: float, sigma: float) -> torch.Tensor:
    """Lambda * previous + sigma * noise for one tensor, where a zero coefficient drops its term (0 * NaN is 0 here)."""
    if lam == 0:
        return sigma * noise if sigma else noise.new_zeros(noise.shape)
    return lam * previous + sigma * noise if sigma else lam * previous


def _gaussian_like(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    # Drawn on the CPU, so that every device sees the same noise.
    return tensor.new_empty(tensor.shape, device="cpu").normal_(generator=generator).to(tensor.device)
