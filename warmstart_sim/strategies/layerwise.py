"""Layerwise re-initialisation, from bottom to top (Alabdulmohsin et al. 2021, Algorithm 1; Zaidi et al. 2022)."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.registry import STRATEGIES
from warmstart_sim.strategies.rescale import rescaled
from warmstart_sim.strategies.subsets import chosen
from warmstart_sim.strategies.upper_layers import blocks_of, entries_above
from warmstart_sim.types import Layout, RoundContext, Start, StateDict, inserted_entries

PositiveInt = Annotated[int, Field(ge=1)]


@STRATEGIES.register("layerwise", "prepares_first_round", "inserts_normalization")
@dataclass(frozen=True)
class Layerwise:
    """Keep the blocks 1 to k, rescaled, normalise the output of block k, and re-initialise what lies above.

    For k = 1, ..., K, and N rounds for each k (Alabdulmohsin et al. 2021, Algorithm 1):

    1. W <- W_previous ||W_0|| / ||W_previous|| for each weight tensor up to block k, where W_0 is that of round 0.
    2. Z <- the output of block k for a sample of the training data; from then on it is x -> (x - mean(Z)) / std(Z).
    3. theta <- theta_fresh above block k, buffers included.

    The first round starts so, too. Rounds after the last of block K go on with k = K.

    Zaidi et al. 2022 (section 3.3) re-initialise at the end of a stage, so their first round is random init, and k = 1
    begins with the second: that is the form with `above`.

    Attributes:
        above: Names of the blocks 1 to K, in the form of Zaidi et al.; several of the model's blocks may count as one.
            Default none: the model's own blocks, in the form of Alabdulmohsin et al.
        repeats: N, at least 1, the same for all blocks of the model. Default 1. Or a list of such numbers for the first
            K blocks: [2, 3] is two rounds with k = 1, and then three with k = 2.
        head_as_block: Whether the head is the last block, whose rounds re-initialise nothing. Default false.
        rescale: Step 1. Default true.
        normalize: Step 2. Default true.
        reinitialize: Step 3. Default true; without it, everything starts from the last weights.
        freeze: Whether only what lies above block k trains, from the second round on. Default false.
        parameters: What step 1 rescales, as in `Rescale`: "weights" (default) or "all".
        samples: How many training samples step 2 draws. Default 256.

    Raises:
        pydantic.ValidationError: A value outside its range (a `ValueError`).
    """

    above: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    repeats: PositiveInt | Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = 1
    head_as_block: bool = False
    rescale: bool = True
    normalize: bool = True
    reinitialize: bool = True
    freeze: bool = False
    parameters: Literal["weights", "all"] = "weights"
    samples: PositiveInt = 256

    @model_validator(mode="after")
    def _something_trains(self) -> Layerwise:
        if self.freeze and self.head_as_block:
            raise ValueError("freeze and head_as_block exclude each other: above the head there is nothing to train")
        return self

    def check_model(self, layout: Layout) -> None:
        """Checks that the model has these blocks."""
        self.block_of(0, self.tops(self._blocks(layout)))

    def prepare_first_round(self, fresh: StateDict, context: RoundContext) -> StateDict | Start:
        """The first start: with k = 1, or in the form of Zaidi et al. random init."""
        return fresh if self.above else self(fresh, fresh, context)

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext) -> StateDict | Start:
        """The start of a round, with the k of this round."""
        blocks = self._blocks(context.layout)
        tops = self.tops(blocks)
        k = self.block_of(context.round - 1 if self.above else context.round, tops)
        return self.start(previous, fresh, context, blocks[: blocks.index(tops[k - 1]) + 1])

    def _blocks(self, layout: Layout) -> tuple[str, ...]:
        """The model's blocks, with the head where it counts as one."""
        blocks = blocks_of(layout, "layerwise")
        return (*blocks, layout.head) if self.head_as_block else blocks

    def tops(self, blocks: Sequence[str]) -> tuple[str, ...]:
        """The last of the model's blocks in each of the blocks 1 to K.

        Raises:
            WarmstartError: `above` names none of them, or they are in another order.

        >>> Layerwise(above=["layer2"], head_as_block=True).tops(["stem", "layer1", "layer2", "layer3", "head"])
        ('layer2', 'head')
        """
        if self.above is None:
            return tuple(blocks)
        inner = blocks[:-1] if self.head_as_block else blocks
        for name in self.above:
            if name not in inner:
                raise WarmstartError(f"strategy 'layerwise': above: {unknown('block', name, inner)}")
        if (ordered := sorted(set(self.above), key=inner.index)) != list(self.above):
            raise WarmstartError(
                f"strategy 'layerwise': above: found {', '.join(self.above)}; from input to output, each once, they "
                f"are {', '.join(ordered)}"
            )
        return (*self.above, *blocks[len(inner) :])

    def block_of(self, round_: int, blocks: Sequence[str]) -> int:
        """The k of a round, counted from 1.

        Raises:
            WarmstartError: `repeats` has more numbers than the model has blocks.

        >>> [Layerwise(repeats=2).block_of(t, ["conv1", "conv2"]) for t in range(5)]
        [1, 1, 2, 2, 2]
        """
        repeats = (self.repeats,) * len(blocks) if isinstance(self.repeats, int) else self.repeats
        if len(repeats) > len(blocks):
            raise WarmstartError(
                f"strategy 'layerwise': repeats has {len(repeats)} numbers, but the model has {len(blocks)} blocks "
                f"({', '.join(blocks)})"
            )
        return min(bisect.bisect_right(list(itertools.accumulate(repeats)), round_) + 1, len(repeats))

    def start(
        self, previous: StateDict, fresh: StateDict, context: RoundContext, lower: Sequence[str]
    ) -> StateDict | Start:
        """The start that keeps the blocks `lower`, the blocks 1 to k; without any it is random init."""
        upper = entries_above(lower, fresh)
        start = {name: fresh[name] if self.reinitialize and name in upper else previous[name] for name in fresh}
        if self.rescale:
            kept = [name for name in chosen(context.layout, start, self.parameters) if name not in upper]
            start = dict(rescaled(start, kept, context.initial_norms))
        if self.normalize and lower:
            start |= self._normalization(start, context, lower[-1])
        if self.freeze and context.previous is not None:
            return Start(start, trainable=upper & context.layout.parameters)
        return start

    def _normalization(self, start: StateDict, context: RoundContext, block: str) -> StateDict:
        """The mean and the deviation of a block's output before its normalisation."""
        mean, deviation = inserted_entries(block)
        if mean not in start:
            raise WarmstartError(
                f"strategy 'layerwise': the model has no place for the normalisation after block '{block}'; call "
                "warmstart_sim.models.insert_normalization(model) where it is made, or set normalize to false"
            )
        import torch

        inputs, _ = context.samples(context.some(context.train, self.samples, "layerwise"))
        outputs = context.block_outputs(start, block, inputs, normalized=False)
        spread = outputs.std(correction=0)
        return {mean: outputs.mean(), deviation: torch.where(spread > 0, spread, torch.ones_like(spread))}
