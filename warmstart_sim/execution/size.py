"""How large a scenario is: its cells, rounds and steps, as `check` shows them; without torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart_sim import scenario as scenarios
from warmstart_sim.datasets.paths import data_root as find_data_root
from warmstart_sim.execution.speed_notes import check_notes
from warmstart_sim.output import count_of
from warmstart_sim.registry import STREAMS

if TYPE_CHECKING:
    from warmstart_sim.scenario.round_sizes import RoundSize
    from warmstart_sim.training.settings import Training

Range = tuple[int, int]  # the least and the most
MAX_STREAMS_SHOWN = 4


@dataclass(frozen=True)
class Size:
    """The size of a scenario. Rounds and steps are those that are trained: shared first phases once, copies never.

    Attributes:
        streams: The sizes of the rounds of each stream: several, where its settings are varied.
        budgets: Where stages share a budget, the epochs and the steps of a cell of each arm. Cells of an arm differ
            where stages do not divide the budget, arms also where their batch sizes differ.
        notes: What the settings of its speed mean on this machine.
    """

    cells: int
    copies: int
    arms: int
    seeds: int
    first_phases: int
    rounds: int
    steps: int
    streams: tuple[tuple[RoundSize, ...], ...] = ()
    budgets: Mapping[str, tuple[Range, Range]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def scenario_size(raw: Mapping[str, Any], where: str, data_root: Path | None = None) -> Size:
    """Counts cells, rounds and steps (if every round trains to its cap) of a prepared scenario, without torch.

    Raises:
        WarmstartError: Something is wrong with the scenario, or its stream does not fit its data.
    """
    from warmstart_sim.scenario.round_sizes import checked_round_sizes

    scenario, cells = scenarios.plan(raw, where)
    phases = scenarios.first_phases(cells)
    rounds = steps = 0
    spent: dict[str, list[tuple[int, int]]] = {}
    work = [*phases, *cells]
    streams: dict[tuple[RoundSize, ...], None] = {}
    for cell, sizes in zip(work, checked_round_sizes(work, find_data_root(data_root), where), strict=True):
        if cell.seed == scenario.header.seeds[0] and not cell.is_first_phase:
            streams[tuple(sizes)] = None
        if cell.copy_of:
            continue
        first = 1 if cell.first_phase or cell.pretraining else 0
        if cell.shares_first_round:
            del sizes[0]
        rounds += len(sizes)
        of_rounds = [_most(cell.arm.training.in_round(first + n), each.train) for n, each in enumerate(sizes)]
        total = sum(epochs for epochs, _ in of_rounds), sum(steps for _, steps in of_rounds)
        steps += total[1]
        shares = STREAMS.has_trait(cell.stream.name, "shares_budget")
        if shares and any(cell.stream.options[rule] for rule in ("epochs", "steps")):
            spent.setdefault(cell.arm.label, []).append(total)
    copies = sum(cell.copy_of is not None for cell in cells)
    budgets = {
        label: ((min(epochs), max(epochs)), (min(of_steps), max(of_steps)))
        for label, each in spent.items()
        for epochs, of_steps in [tuple(zip(*each, strict=True))]
    }
    arms, seeds, notes = len(scenario.arms), len(scenario.header.seeds), check_notes(work, steps)
    return Size(len(cells), copies, arms, seeds, len(phases), rounds, steps, tuple(streams), budgets, notes)


def _most(training: Training, samples: int) -> tuple[int, int]:
    """The epochs and the steps of a round that trains to its cap."""
    in_epoch, anneal = math.ceil(samples / training.batch_size), training.schedule.anneal or 0
    steps = min(training.until.steps or math.inf, training.until.cap * in_epoch)
    return math.ceil(steps / in_epoch) + anneal, int(steps) + anneal * in_epoch


def size_lines(size: Size, where: str) -> Iterator[str]:
    """What `check` says of a valid scenario, a line each.

    Args:
        size: Of the scenario.
        where: Its name.
    """
    cells = f"{count_of(size.cells, 'cell')} ({count_of(size.arms, 'strategy')}, {count_of(size.seeds, 'seed')})"
    phases = f", {count_of(size.first_phases, 'first phase')}" if size.first_phases else ""
    cells += f", {size.copies:,} of them copied" if size.copies else ""
    yield f"{where}: valid; {cells}{phases}, {count_of(size.rounds, 'round')}, at most {count_of(size.steps, 'step')}"
    yield from map(_rounds_line, size.streams[:MAX_STREAMS_SHOWN])
    if len(size.streams) > MAX_STREAMS_SHOWN:
        yield f"and {count_of(len(size.streams) - MAX_STREAMS_SHOWN, 'more stream')}"
    budgets = {
        arm: f"{_span(*epochs, 'epoch')}, {_span(*steps, 'step')}" for arm, (epochs, steps) in size.budgets.items()
    }
    if len(set(budgets.values())) == 1:
        budgets = {"any arm": next(iter(budgets.values()))}
    yield from (f"a cell of {arm}: {text}" for arm, text in budgets.items())
    yield from (f"note: {note}" for note in size.notes)


def _rounds_line(rounds: Sequence[RoundSize]) -> str:
    """The sizes of a stream's rounds, and how many samples each has in common with the round before."""
    train, new = (_listed([getattr(each, name) for each in rounds]) for name in ("train", "new"))
    if len(rounds) == 1:
        return f"one round of {train} training samples"
    text = f"rounds of {train} training samples, {new} of them new"
    kept = [each.again / before.train for before, each in itertools.pairwise(rounds)]
    if min(kept) >= 1:
        return f"{text}; each has all samples of the round before"
    least, most = (round(100 * share) for share in (min(kept), max(kept)))
    return f"{text}; each has {least}{f' to {most}' if most > least else ''} % of the samples of the round before"


def _listed(numbers: Sequence[int]) -> str:
    """Numbers with thousands separators; of many, the first four and the last."""
    shown = [f"{number:,}" for number in numbers]
    return ", ".join(shown if len(shown) <= 6 else [*shown[:4], f"... {shown[-1]}"])


def _span(least: int, most: int, noun: str) -> str:
    return count_of(most, noun) if least == most else f"{least:,} to {count_of(most, noun)}"
