"""How far a round's training has moved the weights."""

from __future__ import annotations

from collections.abc import Mapping

from warmstart_sim.registry import PROBES
from warmstart_sim.types import RoundContext


@PROBES.register(
    "distance_from_start",
    "ignores_previous",
    columns={"distance_from_start": "L2 norm", "cosine_to_start": "-1 to 1"},
    cost="no pass over data",
)
def distance_from_start(context: RoundContext, /) -> Mapping[str, float | None]:
    """L2 distance and cosine similarity between the parameters now and those that the round started from.

    distance = ||theta - theta_start||_2 and cosine = <theta, theta_start> / (||theta|| ||theta_start||), over all
    parameters as one vector. Buffers do not count.

    Columns:
        `distance_from_start`; `cosine_to_start`, empty where one of the two is zero.

    >>> import torch
    >>> from warmstart_sim.types import Layout
    >>> layout = Layout(frozenset({"head.w"}), frozenset(), blocks=(), head="head")
    >>> start, now = {"head.w": torch.tensor([1.0, 0.0])}, {"head.w": torch.tensor([0.0, 1.0])}
    >>> context = RoundContext(
    ...     round=0, layout=layout, generator=lambda purpose: torch.Generator(), start=start, weights=now
    ... )
    >>> {name: round(value, 4) for name, value in distance_from_start(context).items()}
    {'distance_from_start': 1.4142, 'cosine_to_start': 0.0}
    """
    from warmstart_sim.probes._vectors import dot, norm, parameters

    assert context.weights is not None
    assert context.start is not None
    now, start = (parameters(each, context.layout) for each in (context.weights, context.start))
    lengths = norm(now.values()) * norm(start.values())
    return {
        "distance_from_start": norm(now[name] - start[name] for name in now),
        "cosine_to_start": dot(now, start) / lengths if lengths else None,
    }
