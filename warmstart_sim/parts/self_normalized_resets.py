"""Self-normalised resets: a hidden unit is reset when it has been silent for longer than is usual for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from warmstart_sim.registry import PARTS
from warmstart_sim.types import Hooks, RoundContext, StateDict

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from warmstart_sim.hidden_units import HiddenLayer

BUCKETS, PER_OCTAVE = 80, 4  # of the histograms of gaps: up to 2^20 samples, each bucket 19 % wider than the last


@PARTS.register("self_normalized_resets", "ignores_previous", changes="hidden units")
@dataclass(frozen=True, kw_only=True)
class SelfNormalizedResets:
    """SNR: resets a hidden unit that has not fired for longer than the 98th percentile of its own gaps.

    A unit fires on a sample if it is positive there (at some position). The gap between two firings is counted in
    samples, in the order of training. Every `every` steps, a unit is reset whose samples since it last fired have
    reached its own percentile of gaps: incoming weights and bias are drawn anew, outgoing weights and the optimiser's
    moments become zero, and its gaps are forgotten. A unit with fewer than 1 / (1 - percentile) gaps takes the
    percentile of all units of its layer.

    Gaps are kept in a histogram whose buckets are 19 % wide; a percentile is the upper edge of its bucket. Unlike ReDo,
    it needs no threshold on the activity: units that rarely fire are left alone while they keep their rhythm.
    `hidden_units` says what counts as a unit, and what is done about BatchNorm.

    Farias & Jozefiak 2024, https://arxiv.org/abs/2410.20098.

    Attributes:
        percentile: In (0, 1). Default 0.98. A healthy unit, too, reaches it in one of fifty looks.
        every: Steps between two looks, counted from the start of the round. Default 16.
    """

    percentile: Annotated[float, Field(gt=0, lt=1)] = 0.98
    every: Annotated[int, Field(ge=1)] = 16

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> Hooks:
        """The hooks of a round: one counts gaps, and one resets units after a step."""
        import torch

        from warmstart_sim.hidden_units import hidden_layers, reset_units

        state: dict[str, Any] = {"steps": torch.zeros((), dtype=torch.int64)}
        layers: list[HiddenLayer] = []

        def attach(model: nn.Module) -> list[RemovableHandle]:
            layers.extend(hidden_layers(model, "part 'self_normalized_resets'"))
            handles = []
            for layer in layers:
                device = model.get_parameter(f"{layer.name}.weight").device
                own = state[layer.name] = {
                    "since": torch.zeros(layer.units, dtype=torch.int64, device=device),
                    "gaps": torch.zeros(layer.units, BUCKETS, dtype=torch.int64, device=device),
                }
                handles.append(model.get_submodule(layer.reader).register_forward_pre_hook(count_gaps(layer, own)))
            return handles

        def after_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
            state["steps"] += 1
            if state["steps"] % self.every:
                return
            for layer in layers:
                own = state[layer.name]
                silent = (own["since"] >= usual_gaps(own["gaps"], self.percentile)).nonzero().flatten()
                if len(silent) and layer.trains(model):
                    generator = context.step_generator(f"self_normalized_resets {layer.name}", int(state["steps"]))
                    reset_units(model, optimizer, layer, silent, fresh, generator)
                    own["since"][silent] = 0
                    own["gaps"][silent] = 0

        return Hooks(attach=attach, after_step=after_step, state=state)


def count_gaps(layer: HiddenLayer, own: dict[str, torch.Tensor]) -> Any:
    """A forward hook that adds the gaps of a batch to the histograms, and follows the samples since the last firing."""
    import torch

    def count(reader: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if not reader.training:
            return
        with torch.no_grad():
            fires = (layer.by_unit(args[0]) > 0).any(2).T  # (units, n)
            place = torch.arange(1, fires.shape[1] + 1, device=fires.device)
            # The place of the last firing up to each sample; what came before the batch has places up to 0.
            last = torch.where(fires, place, -own["since"][:, None]).cummax(1).values
            before = torch.cat((-own["since"][:, None], last[:, :-1]), dim=1)
            rows = BUCKETS * torch.arange(layer.units, device=fires.device)[:, None]  # of one long histogram
            own["gaps"].view(-1).scatter_add_(0, (rows + bucket(place - before)).flatten(), fires.long().flatten())
            own["since"].copy_(len(place) - last[:, -1])

    return count


def bucket(gaps: torch.Tensor) -> torch.Tensor:
    """The bucket of each gap, an integer of at least 1."""
    return (PER_OCTAVE * gaps.double().log2()).floor().long().clamp_max(BUCKETS - 1)


def usual_gaps(counts: torch.Tensor, percentile: float) -> torch.Tensor:
    """The percentile of each unit's gaps, or that of all units together for a unit with too few; (units,).

    >>> import torch
    >>> counts = torch.zeros(2, BUCKETS, dtype=torch.int64)
    >>> counts[0, bucket(torch.tensor([8]))] = 100  # the other unit has not fired yet
    >>> usual_gaps(counts, 0.9)
    tensor([9.5137, 9.5137])
    """
    import torch

    enough = counts.sum(1, keepdim=True) >= 1 / (1 - percentile)
    counts = torch.where(enough, counts, counts.sum(0))
    below = counts.cumsum(1) < percentile * counts.sum(1, keepdim=True)
    edges = 2.0 ** ((below.sum(1) + 1) / PER_OCTAVE)
    return edges.where(counts.sum(1) > 0, float("inf"))  # nothing has fired yet
