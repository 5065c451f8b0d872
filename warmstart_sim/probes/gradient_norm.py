"""The gradients of old and of new samples (Ash & Adams 2020, Figure 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from warmstart_sim.registry import PROBES
from warmstart_sim.types import RoundContext


@PROBES.register(
    "gradient_norm",
    columns={"gradient_norm_new": "L2 norm", "gradient_norm_old": "L2 norm", "gradient_norm_ratio": "new / old"},
    cost="a forward and a backward pass over at most 2 x samples",
)
def gradient_norm(
    context: RoundContext, /, *, samples: Annotated[int, Field(ge=1)] = 1000
) -> Mapping[str, float | None]:
    """L2 norm of the loss gradient over new samples, over old ones, and their ratio.

    gradient_norm_S = ||grad_theta mean over i in S of L(f(x_i; theta), y_i)||_2 with the cross-entropy L, in evaluation
    mode on clean inputs, over all parameters. New samples arrived with this round, old ones with earlier rounds. The
    ratio is new / old. Source: Ash & Adams 2020, section 3.1 and Figure 5.

    Args:
        context: The round's context.
        samples: At most this many new and as many old samples, drawn at random once a round. Default 1000.

    Columns:
        `gradient_norm_new`, `gradient_norm_old`, `gradient_norm_ratio`; empty where there are no such samples, as
        there are no old ones in the first round.
    """
    from warmstart_sim.probes._vectors import norm

    assert context.weights is not None
    norms: dict[str, float | None] = {}
    for name, indices in (("new", context.new), ("old", context.old)):
        chosen = context.some(indices, samples, f"gradient_norm_{name}")
        norms[name] = norm(context.gradients(context.weights, chosen).values()) if len(chosen) else None
    new, old = norms["new"], norms["old"]
    return {
        "gradient_norm_new": new,
        "gradient_norm_old": old,
        "gradient_norm_ratio": new / old if new is not None and old else None,
    }
