"""How the cells of a run are put side by side: as asked for, or as measured; kept in the run's folder."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell

if TYPE_CHECKING:
    from warmstart_sim.experiment.settings import Batching, ExecutionSettings


def choose_parallelism(
    execution: ExecutionSettings,
    cells: Sequence[Cell],
    run: RunFolder,
    *,
    workers: int,
    slots: int | Literal["auto"],
    batching: Batching | Literal["auto"],
) -> ExecutionSettings:
    """The place with slots, batching, timing, and, where cells share the machine, what a step costs alone.

    What has to be measured is measured now, on a machine that this run leaves idle, and written to `speed.json`. A run
    that goes on takes it from there: its cells are trained as those before them.

    Args:
        execution: Where cells run.
        cells: Those that are left, first phases among them.
        run: The run's folder.
        workers: The number of processes.
        slots: Cells in each; "auto" measures.
        batching: How; "auto" takes the faster one.
    """
    if not cells or (slots == 1 and workers == 1):
        return execution
    import torch

    from warmstart_sim.execution import throughput
    from warmstart_sim.training.step_time import StepTime

    record = _stored(run, execution)
    threads = torch.get_num_threads()  # measuring sets the cells' number; the process is the caller's
    try:
        if slots != 1:
            most = min(math.ceil(len(cells) / workers), slots if isinstance(slots, int) else len(cells))
            chosen = _chosen(record, execution, cells, most, slots, batching)
            execution = replace(execution, slots=min(most, chosen["slots"]), batching=chosen["batching"])
        if execution.slots == 1 and workers == 1:
            return execution
        known = {kind: StepTime(**times) for kind, times in record.get("step_times", {}).items()}
        new = throughput.step_times([cell for cell in cells if cell.step_kind not in known], execution)
        record["step_times"] = {kind: asdict(times) for kind, times in {**known, **new}.items()}
        return replace(execution, timing="shared", step_times=known | new)
    finally:
        torch.set_num_threads(threads)
        run.save_speed(record)


def _stored(run: RunFolder, execution: ExecutionSettings) -> dict[str, Any]:
    stored = run.speed()
    return stored if stored.get("device") == execution.device else {"device": execution.device}


def _chosen(
    record: dict[str, Any],
    execution: ExecutionSettings,
    cells: Sequence[Cell],
    most: int,
    slots: int | Literal["auto"],
    batching: Batching | Literal["auto"],
) -> dict[str, Any]:
    """Slots and batching: from the record, if the same was asked for then, or measured now and added to it."""
    from warmstart_sim.execution.throughput import Rate, failures_left_to_the_cells, fastest, rates

    asked = {"slots": slots, "batching": batching}
    if record.get("asked") != asked:
        kinds = Counter(cell.step_kind for cell in cells)
        example = next(cell for cell in cells if cell.step_kind == kinds.most_common(1)[0][0])
        found = [Rate("separate", 1, 0.0)]
        with failures_left_to_the_cells():
            found = list(rates(example, execution, most, (most,) if isinstance(slots, int) else None, batching))
        best = fastest(found) if slots == "auto" else max(found[1:] or found, key=lambda rate: rate.steps_per_second)
        record["asked"] = asked
        record["rates"] = [asdict(rate) for rate in found]
        record["chosen"] = {"slots": best.slots, "batching": best.batching}
    chosen: dict[str, Any] = record["chosen"]
    return chosen
