"""How much rounds help or harm what was learnt before, and what comes after them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from warmstart_sim.registry import PROBES
from warmstart_sim.types import RoundContext

COLUMNS = (
    "present_accuracy", "past_accuracy", "future_accuracy", "backward_transfer", "forward_transfer",
    "forward_transfer_to_next", "accuracy_on_round_{round}",
)  # fmt: skip


@PROBES.register(
    "transfer",
    "compares_rounds",
    columns=dict.fromkeys(COLUMNS, "fraction"),
    cost="a forward pass over the test samples of every round",
)
def transfer(context: RoundContext, /, *, matrix: bool = False) -> Mapping[str, float | None]:
    """Accuracy on present, past and future data, and backward and forward transfer.

    With a[t, k] the accuracy at the end of round t on test samples that are like the new samples of round k, and b[k]
    that of the random initialisation of round 0:

    - backward transfer = mean over k < t of (a[t, k] - a[k, k]), Avalanche's `StreamBWT`;
    - forward transfer to the next round = a[t, t + 1] - b[t + 1], Avalanche's `ExperienceForwardTransfer`;
    - forward transfer = the mean of the latter over all rounds so far, Avalanche's `StreamForwardTransfer`.

    Source: Lopez-Paz & Ranzato 2017 (GEM), whose numbers are those of the last round. For streams whose rounds differ
    in their test data. Under `each_round` it is measured at the end of rounds only.

    Args:
        context: The round's context.
        matrix: Whether to store a[t, k] for every k. Default false.

    Columns:
        `present_accuracy` (a[t, t]), `past_accuracy` and `future_accuracy` (the means over k < t and k > t),
        `backward_transfer`, `forward_transfer`, `forward_transfer_to_next`; `accuracy_on_round_0` and so on with
        `matrix`. What has no rounds to compare is empty.
    """
    if context.epoch == 0:
        return {}
    assert context.weights is not None
    now, next_ = context.round, context.round + 1
    accuracy = {k: context.evaluate(context.weights, k)[0] for k in context.tested_rounds}
    before = {row["round"]: row for row in context.rows if row["round"] < now}
    to_next = None
    if next_ in accuracy:
        to_next = _difference(accuracy[next_], context.evaluate(context.initial(), next_)[0])
    changes = [_difference(accuracy.get(k), row.get("present_accuracy")) for k, row in before.items()]
    return {
        "present_accuracy": accuracy.get(now),
        "past_accuracy": _mean(a for k, a in accuracy.items() if k < now),
        "future_accuracy": _mean(a for k, a in accuracy.items() if k > now),
        "backward_transfer": _mean(changes),
        "forward_transfer": _mean([*(row.get("forward_transfer_to_next") for row in before.values()), to_next]),
        "forward_transfer_to_next": to_next,
        **({f"accuracy_on_round_{k}": a for k, a in accuracy.items()} if matrix else {}),
    }


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of what was measured; None if nothing was."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
