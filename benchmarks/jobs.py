"""Estimates how long a whole job takes from a run with some of its rounds, beside the published minutes.

    python benchmarks/jobs.py RUN_DIR [--rounds 33]

RUN_DIR is a complete or partial run of `cifar10_online`, `ash_adams/F8_grid` or a similar scenario (data arriving in
equal chunks). It needs RUN_DIR/cells with the cells' progress, or at least the tables of the complete cells.

Completed rounds count as measured: training, criterion and evaluation. A missing round is assumed to need the mean
number of epochs of the last (up to) three rounds, the last complete round's seconds per sample for training and
criterion, and its evaluation seconds once. Cells that ran side by side shared the machine: a cell's seconds are divided
by the number of slots, so that they add up to the time of the whole job if no slot is idle.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.results import tables
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario import Cell

ROUNDS = 33  # full chunks of 1,000 in the two thirds of CIFAR-10 used for training
RECENT = 3  # last rounds, whose mean number of epochs a missing round is assumed to need

# Ash & Adams 2020, section 8.2.1: minutes of ResNet-18 on CIFAR-10, 1,000 samples at a time, on a P100. Cells left
# empty in the paper did not train. lambda = 1, sigma = 0 is warm start; lambda = 0, sigma = 1 is random init.
SIGMAS = (1.0, 0.1, 0.01, 0.001, 0.0001, 0.0)
MINUTES = {
    1.0: (35.8, 17.4, 15.8, 17.1, 16.4, 16.3),
    0.8: (41.0, 38.8, 43.1, 43.0, 43.8, 43.8),
    0.6: (53.3, 52.7, 57.7, 60.2, 59.8, 59.8),
    0.4: (68.8, 72.1, 83.1, 84.7, 83.9, 86.1),
    0.2: (90.8, 78.8),
    0.0: (94.4, 130.0),
}
PUBLISHED = {(lam, sigma): minutes for lam, row in MINUTES.items() for sigma, minutes in zip(SIGMAS, row, strict=False)}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class JobTime:
    """A cell's machine time in seconds.

    Attributes:
        rounds: Completed rounds.
        epochs: Their epochs.
        run: Their seconds.
        missing: Missing rounds.
        extrapolated: Their estimated seconds.
    """

    rounds: int
    epochs: int
    run: float
    missing: int
    extrapolated: float

    @property
    def whole(self) -> float:
        return self.run + self.extrapolated


def estimate(rows: Sequence[Row], rounds: int, slots: int = 1) -> JobTime:
    """Estimates the time of a cell with `rounds` rounds.

    Args:
        rows: Its rounds so far, at least one, in order.
        rounds: The number of rounds of the whole job.
        slots: The number of cells that shared the machine in rounds that did not run alone.
    """

    def own_share(row: Row, seconds: float) -> float:
        return seconds / slots if row["timing"] == "concurrent" else seconds

    run = sum(own_share(row, _epoch_seconds(row) + row["evaluation_seconds"]) for row in rows)
    last = rows[-1]
    epochs = sum(row["epochs"] for row in rows[-RECENT:]) / len(rows[-RECENT:])
    per_sample = _epoch_seconds(last) / (last["epochs"] * last["train_samples"])
    missing = range(last["round"] + 1, rounds)
    samples = sum(last["train_samples"] + (index - last["round"]) * last["new_samples"] for index in missing)
    extrapolated = epochs * samples * per_sample + len(missing) * last["evaluation_seconds"]
    all_epochs = sum(row["epochs"] for row in rows)
    return JobTime(len(rows), all_epochs, run, len(missing), own_share(last, extrapolated))


def _epoch_seconds(row: Row) -> float:
    return float(row["train_seconds"] + row["criterion_seconds"])


def rounds_of(run_dir: Path) -> Iterator[tuple[Cell, list[Row]]]:
    """Yields each cell with its completed rounds, read from its result, its checkpoint or the run's table."""
    run = RunFolder(run_dir)
    scenario = run.scenario()
    if scenario is None:
        raise WarmstartError(f"{run_dir} holds no run: scenario.yaml is missing")
    _, cells = scenarios.plan(scenario, str(run_dir / "scenario.yaml"))
    table = tables.load(run_dir).rounds if (run_dir / "rounds.csv").exists() else None
    for cell in cells:
        folder = run.cell(cell.id)
        stored = folder.result() or folder.checkpoint()
        if stored is None and table is not None:
            own = (table["strategy"] == cell.arm.label) & (table["seed"] == cell.seed)
            for column, value in cell.varied.items():
                own &= table[column].isna() if value is None else table[column] == value
            stored = {"rounds": table[own].sort_values("round").to_dict("records")}
        yield cell, stored["rounds"] if stored else []


def published(cell: Cell) -> float | None:
    """Returns the paper's minutes for an arm with one of its starts and without parts, or None."""
    start, options = cell.arm.start.name, cell.arm.start.options
    fixed = {"random_init": (0.0, 1.0), "warm_start": (1.0, 0.0)}
    lam, sigma = fixed.get(start) or (options.get("lambda", 0.6), options.get("sigma", 0.01))
    same_problem = (cell.data.name, cell.model.name) == ("cifar10", "resnet18")
    known = same_problem and start in (*fixed, "shrink_perturb") and not cell.arm.parts
    return PUBLISHED.get((float(lam), float(sigma))) if known else None


def document(run_dir: Path, rounds: int | None = None) -> Iterator[str]:
    """Yields the lines of the Markdown document. The default of `rounds` is 33, or more if a cell has more."""
    environment = _environment(run_dir)
    slots = environment.get("workers", 1) * environment.get("slots", 1)
    found = list(rounds_of(run_dir))
    started = [(cell, rows) for cell, rows in found if rows]
    if not started:
        raise WarmstartError(f"{run_dir}: no cell has completed a round yet")
    rounds = rounds or max(ROUNDS, *(len(rows) for _, rows in started))
    estimates = [(cell, estimate(rows[:rounds], rounds, slots)) for cell, rows in started]
    waiting = len(found) - len(started)

    yield f"# The whole job: {started[0][0].scenario}"
    yield ""
    known = (environment.get(key, f"{key} unknown") for key in ("device_name", "torch", "date", "command"))
    yield "{}, torch {}, {}. `{}`".format(*known)
    yield ""
    yield (
        f"All {rounds} rounds, in minutes of machine time. Up to {slots} cells ran at a time, and each counts with its "
        "share of the time. Published: Ash & Adams 2020, section 8.2.1, on a P100."
    )
    yield ""
    yield "| cell | seeds | rounds run | epochs run | minutes run | extrapolated | all | published | published / ours |"
    yield f"|{'---|' * 9}"
    compared: list[tuple[float, float, float]] = []
    for name, members, paper in _by_cell(estimates):
        run, more = (_mean(values) / 60 for values in zip(*((e.run, e.extrapolated) for e in members), strict=True))
        fewest, most = min(e.rounds for e in members), max(e.rounds for e in members)
        done = str(most) if fewest == most else f"{fewest}-{most}"
        epochs = f"{_mean([e.epochs for e in members]):,.0f}"
        ratio = f"{paper / (run + more):.1f}" if paper else "-"
        yield (
            f"| {name} | {len(members)} | {done} | {epochs} | {run:.2f} | {more:.2f} | {run + more:.2f} "
            f"| {paper or '-'} | {ratio} |"
        )
        if paper:
            compared.append((run, more, paper))
    run, more, paper = (sum(values) for values in zip(*compared, strict=True)) if compared else (0.0, 0.0, 0.0)
    if paper:
        yield (
            f"| {len(compared)} published cells, one seed | | | | {run:.2f} | {more:.2f} | {run + more:.2f} "
            f"| {paper:,.1f} | {paper / (run + more):.1f} |"
        )
    yield ""
    yield from _summary([each for _, each in estimates], rounds, waiting)


def _by_cell(
    estimates: Iterable[tuple[Cell, JobTime]],
) -> Iterator[tuple[str, list[JobTime], float | None]]:
    """Groups cells that differ only in the seed: name, estimates, published minutes."""
    groups: defaultdict[str, list[tuple[Cell, JobTime]]] = defaultdict(list)
    for cell, each in estimates:
        values = (f"{column.rpartition('.')[2]} {value}" for column, value in cell.varied.items() if value is not None)
        groups[" ".join([cell.arm.label, *values])].append((cell, each))
    for name, members in groups.items():
        yield name, [each for _, each in members], published(members[0][0])


def _summary(estimates: Sequence[JobTime], rounds: int, waiting: int) -> Iterator[str]:
    """Says how much was run and how much is extrapolated."""
    run, more = sum(each.run for each in estimates), sum(each.extrapolated for each in estimates)
    have = sum(each.rounds for each in estimates)
    yield (
        f"Run: {have} of {len(estimates) * rounds} rounds of {len(estimates)} cells (seeds counted), "
        f"{run / 60:.2f} minutes. Extrapolated: {sum(each.missing for each in estimates)} rounds, {more / 60:.2f} "
        f"minutes, {more / (run + more):.0%} of the whole."
    )
    if waiting:
        yield f"Left out: {waiting} cells that have not completed a round yet."


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _environment(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "environment.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--rounds", type=int, help=f"of the whole job; default: {ROUNDS}, or more if the run has more")
    arguments = parser.parse_args()
    try:
        for line in document(arguments.run_dir, arguments.rounds):
            print(line)
    except WarmstartError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
