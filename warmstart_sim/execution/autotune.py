"""Chooses slots and batching of a run, as given or as measured; speed.json in the run's folder keeps the choice."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell

if TYPE_CHECKING:
    from warmstart_sim.experiment.settings import Batching, ExecutionSettings


@dataclass(frozen=True)
class Parallelism:
    """How many cells are to be trained at a time, and how.

    Attributes:
        workers: The number of processes.
        slots: Cells in each process; "auto" measures.
        batching: How cells in slots make their steps; "auto" takes the fastest.
    """

    workers: int
    slots: int | Literal["auto"]
    batching: Batching | Literal["auto"]


def choose_parallelism(
    execution: ExecutionSettings, cells: Sequence[Cell], run: RunFolder, wanted: Parallelism
) -> ExecutionSettings:
    """Sets slots, batching, timing, and, if cells share the machine, the seconds of a step alone.

    Measures what is needed on the idle machine and writes it to `speed.json`. A resumed run reads it from there, so
    that its cells train as those before them.

    Args:
        execution: Where cells run.
        cells: The unfinished cells, first phases included.
        run: The run's folder.
        wanted: What was asked for.
    """
    workers, slots = wanted.workers, wanted.slots
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
            chosen = _chosen(record, execution, cells, most, wanted)
            execution = replace(execution, slots=min(most, chosen["slots"]), batching=chosen["batching"])
        if execution.slots == 1 and workers == 1:
            return execution
        known = {kind: StepTime(**times) for kind, times in record.get("step_times", {}).items()}
        new = throughput.step_times([cell for cell in cells if cell.step_kinds.keys() - known.keys()], execution)
        step_times = new | known
        record["step_times"] = {kind: asdict(times) for kind, times in step_times.items()}
        return replace(execution, timing="concurrent", step_times=step_times)
    finally:
        torch.set_num_threads(threads)
        throughput.release_memory(execution.device)
        run.save_speed(record)


def _stored(run: RunFolder, execution: ExecutionSettings) -> dict[str, Any]:
    stored = run.speed()
    return stored if stored.get("device") == execution.device else {"device": execution.device}


def _chosen(
    record: dict[str, Any],
    execution: ExecutionSettings,
    cells: Sequence[Cell],
    most: int,
    wanted: Parallelism,
) -> dict[str, Any]:
    """Slots and batching: from the record if the same was asked for, else measured now and added to it."""
    from warmstart_sim.execution.throughput import (
        Rate,
        fastest,
        ignore_cell_failures,
        rates,
        use_default_generators,
    )  # fmt: skip

    slots, batching = wanted.slots, wanted.batching
    asked = {"slots": slots, "batching": batching}
    if record.get("asked") != asked or record["chosen"]["batching"] == "apart":  # the old name of "separate"
        kinds = Counter(cell.step_kind(0) for cell in cells)
        example = next(cell for cell in cells if cell.step_kind(0) == kinds.most_common(1)[0][0])
        found = [Rate("separate", 1, 0.0)]
        if not use_default_generators(cells, execution):
            with ignore_cell_failures():
                found = list(rates(example, execution, most, (most,) if isinstance(slots, int) else None, batching))
        best = fastest(found) if slots == "auto" else max(found[1:] or found, key=lambda rate: rate.steps_per_second)
        record["asked"] = asked
        record["rates"] = [asdict(rate) for rate in found]
        record["chosen"] = {"slots": best.slots, "batching": best.batching}
    chosen: dict[str, Any] = record["chosen"]
    return chosen
