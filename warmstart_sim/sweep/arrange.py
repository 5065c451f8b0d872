"""How the cells of a run are put side by side: as asked for, or as measured; kept in the run's folder."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

from warmstart_sim.config import Cell
from warmstart_sim.results.store import RunFolder

if TYPE_CHECKING:
    from warmstart_sim.place import Batching, Place


def arranged(
    place: Place,
    cells: Sequence[Cell],
    run: RunFolder,
    *,
    workers: int,
    slots: int | Literal["auto"],
    batching: Batching | Literal["auto"],
) -> Place:
    """The place with slots, batching, timing, and, where cells share the machine, what a step costs alone.

    What has to be measured is measured now, on a machine that this run leaves idle, and written to `speed.json`. A run
    that goes on takes it from there: its cells are trained as those before them.

    Args:
        place: Where cells run.
        cells: Those that are left, first phases among them.
        run: The run's folder.
        workers: The number of processes.
        slots: Cells in each; "auto" measures.
        batching: How; "auto" takes the faster one.
    """
    if not cells or (slots == 1 and workers == 1):
        return place
    import torch

    from warmstart_sim.sweep import speed
    from warmstart_sim.training.step_time import StepTime

    record = _stored(run, place)
    threads = torch.get_num_threads()  # measuring sets the cells' number; the process is the caller's
    try:
        if slots != 1:
            most = min(math.ceil(len(cells) / workers), slots if isinstance(slots, int) else len(cells))
            chosen = _chosen(record, place, cells, most, slots, batching)
            place = replace(place, slots=min(most, chosen["slots"]), batching=chosen["batching"])
        if place.slots == 1 and workers == 1:
            return place
        known = {kind: StepTime(**times) for kind, times in record.get("step_times", {}).items()}
        new = speed.step_times([cell for cell in cells if cell.step_kind not in known], place)
        record["step_times"] = {kind: asdict(times) for kind, times in {**known, **new}.items()}
        return replace(place, timing="shared", step_times=known | new)
    finally:
        torch.set_num_threads(threads)
        run.save_speed(record)


def _stored(run: RunFolder, place: Place) -> dict[str, Any]:
    stored = run.speed()
    return stored if stored.get("device") == place.device else {"device": place.device}


def _chosen(
    record: dict[str, Any],
    place: Place,
    cells: Sequence[Cell],
    most: int,
    slots: int | Literal["auto"],
    batching: Batching | Literal["auto"],
) -> dict[str, Any]:
    """Slots and batching: from the record, if the same was asked for then, or measured now and added to it."""
    from warmstart_sim.sweep.speed import Rate, failures_left_to_the_cells, fastest, rates

    asked = {"slots": slots, "batching": batching}
    if record.get("asked") != asked:
        kinds = Counter(cell.step_kind for cell in cells)
        example = next(cell for cell in cells if cell.step_kind == kinds.most_common(1)[0][0])
        found = [Rate("apart", 1, 0.0)]
        with failures_left_to_the_cells():
            found = list(rates(example, place, most, (most,) if isinstance(slots, int) else None, batching))
        best = fastest(found) if slots == "auto" else max(found[1:] or found, key=lambda rate: rate.steps_per_second)
        record["asked"] = asked
        record["rates"] = [asdict(rate) for rate in found]
        record["chosen"] = {"slots": best.slots, "batching": best.batching}
    chosen: dict[str, Any] = record["chosen"]
    return chosen
