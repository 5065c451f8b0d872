"""Re-initialise the layers above a block, or only the head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic.dataclasses import dataclass

from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.registry import STRATEGIES
from warmstart_sim.strategies.basic import Draw, drawn
from warmstart_sim.types import Layout, RoundContext, StateDict


@STRATEGIES.register("fc")
@dataclass(frozen=True)
class Fc:
    """Re-initialise what lies above the last block: the fully connected layers of a convolutional network.

    theta <- theta_previous up to the block, theta_fresh above it, buffers included (Li et al. 2020, as in Alabdulmohsin
    et al. 2021). It is `layerwise` at that block without rescaling and normalisation, and, with the last block but one,
    later-layer forgetting (Zhou et al. 2022, https://arxiv.org/abs/2202.00155).

    Attributes:
        above: The block, by its module's name. Default None: the model's last.
    """

    above: str | None = None

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext) -> StateDict:
        """The state with fresh upper layers."""
        upper = entries_above(self._kept(context.layout), fresh)
        return {name: fresh[name] if name in upper else previous[name] for name in fresh}

    def check_model(self, layout: Layout) -> None:
        """Checks that the model has the block."""
        self._kept(layout)

    def _kept(self, layout: Layout) -> tuple[str, ...]:
        """The blocks that are kept."""
        blocks = blocks_of(layout, "fc")
        block = self.above or blocks[-1]
        if block not in blocks:
            raise WarmstartError(f"strategy 'fc': above: {unknown('block', block, blocks)}")
        return blocks[: blocks.index(block) + 1]


@STRATEGIES.register("head")
@dataclass(frozen=True)
class Head:
    """Re-initialise the head, and keep everything else.

    theta <- theta_fresh in the head, theta_previous elsewhere (Zhao et al. 2018, as in Alabdulmohsin et al. 2021).

    Attributes:
        draw: As in `RandomInit`: "initial" resets the head to that of round 0.
    """

    draw: Draw | None = None

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext) -> StateDict:
        """The state with a fresh head."""
        new = drawn(self.draw, fresh, context)
        return {name: new[name] if context.layout.in_head(name) else previous[name] for name in fresh}


def blocks_of(layout: Layout, strategy: str) -> tuple[str, ...]:
    """The model's blocks, without the head.

    Raises:
        WarmstartError: It has none.
    """
    if not layout.blocks:
        raise WarmstartError(
            f"strategy '{strategy}' needs a model with blocks, and this one has none; in a model of your own, name "
            "them: self.block_names = ('conv1', 'conv2'), submodules from input to output, and self.head_name = 'head'"
        )
    return layout.blocks


def entries_above(blocks: Sequence[str], entries: Iterable[str]) -> set[str]:
    """Names in a state dict that come after all of these blocks, in its order; all names if there are no blocks.

    >>> sorted(entries_above(["conv1"], ["stem.weight", "conv1.weight", "conv2.weight", "head.weight"]))
    ['conv2.weight', 'head.weight']
    """
    names = list(entries)
    inside = [k for k, name in enumerate(names) if any(name.startswith(f"{block}.") for block in blocks)]
    return set(names[max(inside, default=-1) + 1 :])
