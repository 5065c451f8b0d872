"""Plays the past: measures the pace, compares settings in early rounds, and checks the choice in later ones."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from warmstart_sim import preemption
from warmstart_sim import scenario as scenarios
from warmstart_sim.advise.halving import REFERENCE, SETTINGS, Setting, compare, ranked, trend
from warmstart_sim.advise.plan import CHOOSING, HELD_OUT, MOST_CHECKED, Pace, Plan
from warmstart_sim.advise.question import Question
from warmstart_sim.datasets.loading import load
from warmstart_sim.errors import DataError, WarmstartError
from warmstart_sim.execution.launch import collect, run_scenario
from warmstart_sim.execution.options import RunOptions
from warmstart_sim.execution.throughput import step_times
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.report.wording import duration
from warmstart_sim.results.store import RunFolder
from warmstart_sim.results.tables import Run
from warmstart_sim.results.tables import load as load_run
from warmstart_sim.scenario.cells import import_user_modules
from warmstart_sim.types import Dataset

CHECK_SEED = 1000  # the first seed of the check; those of choosing count from 0
PILOT_SHARE, PILOT_EPOCHS = 0.05, 30  # of the budget, for a round that is guessed to take so many epochs
PILOT_SAMPLES = 32  # at least, and no more than a share of the budget of MOST_PILOT
MOST_PILOT = 0.3


@dataclass(frozen=True)
class Choice:
    """What choosing has shown so far.

    Attributes:
        setting: The setting that goes to the check; None if none trained in two seeds.
        tried: How many seeds each setting was compared with, by label.
        table: The settings that were left last, from `halving.compare`; None if there was no choice.
        cut_short: Whether time was over before all stages were.
    """

    setting: Setting | None
    tried: Mapping[str, int]
    table: pd.DataFrame | None = None
    cut_short: bool = False


@dataclass
class Player:
    """Runs the scenarios of a question in subfolders of one folder, until time is over.

    Attributes:
        question: What is asked.
        folder: Where the runs lie.
        options: How they are run.
        data_root: The folder of data sets.
        minutes: The budget.
        say: Called with each line for the user.
        deadline: When the budget is over, of `time.monotonic`.
        stopped: Whether nothing is run any more; what is complete still counts.
    """

    question: Question
    folder: Path
    options: RunOptions
    data_root: Path
    minutes: float
    say: Callable[[str], None]
    deadline: float = 0.0
    stopped: bool = False

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + 60 * self.minutes

    @property
    def seconds_left(self) -> float:
        """Of the budget."""
        return self.deadline - time.monotonic()

    def dataset(self) -> Dataset:
        """All data, in the order of arrival.

        Raises:
            DataError: The data set has no test samples.
        """
        options = {"of": dict(self.question.data), "order": self.question.order, "samples": None, "held_out": None}
        dataset = load("past", options, self.data_root, 0)
        if not len(dataset.test):
            raise DataError(f"{self.question.data['name']}: there are no test samples, which the check needs")
        return dataset

    def play(self, name: str, raw: Mapping[str, Any], deadline: float) -> bool:
        """Runs a scenario in the folder `name`, or resumes it; returns whether it is complete.

        Args:
            name: The run's folder below the question's.
            raw: The scenario.
            deadline: When to stop, of `time.monotonic`; what is complete is kept.

        Raises:
            WarmstartError: An error that concerns the whole run, or random init failed.
        """
        if self.stopped:
            return False
        path = self.folder / name
        try:
            with preemption.stops_after(deadline - time.monotonic()):
                outcome = run_scenario(raw, str(path), replace(self.options, out=path, quiet=True))
        except preemption.Preempted:
            if time.monotonic() < deadline:  # SIGTERM
                raise
            return False
        if any(cell.startswith(REFERENCE) for cell in outcome.failures):
            outcome.raise_failures()
        return True

    def tables(self, name: str) -> Run | None:
        """The tables of a run, as far as it is; None if there is none."""
        if RunFolder(self.folder / name).scenario() is None:
            return None
        with contextlib.suppress(WarmstartError):
            collect(self.folder / name)
            run = load_run(self.folder / name)
            return run if len(run.rounds) else None
        return None


def measure_pace(player: Player, chunk: int) -> Pace:
    """Measures a step, then trains random init once on as many samples as a twentieth of the budget allows.

    Args:
        player: Runs it.
        chunk: The samples of the first round, of which it takes no more.

    Raises:
        WarmstartError: Not even that fits into the budget; the message says how much would.
    """
    budget = 60 * player.minutes
    batch, step_seconds = _step_seconds(player, _pilot(player.question, chunk))
    sample_seconds = step_seconds / batch
    fits = math.floor(PILOT_SHARE * budget / (PILOT_EPOCHS * sample_seconds))
    samples = min(chunk, max(fits, PILOT_SAMPLES))
    if (needed := samples * PILOT_EPOCHS * sample_seconds / MOST_PILOT) > budget:
        raise WarmstartError(
            f"--minutes {player.minutes:g}: too little: a step takes {duration(step_seconds)}, so that "
            f"one training on {samples} samples takes about {duration(needed * MOST_PILOT)}; give --minutes "
            f"{math.ceil(needed / 60)} at least, or a quicker model"
        )
    if not player.play("pilot", _pilot(player.question, samples), time.monotonic() + MOST_PILOT * budget):
        raise WarmstartError(
            f"--minutes {player.minutes:g}: too little: one training on {samples} samples takes more than "
            f"{duration(MOST_PILOT * budget)}; give more minutes, or a cap of epochs (--set training.until.max_epochs)"
        )
    run = player.tables("pilot")
    assert run is not None
    row = run.rounds.iloc[-1]
    seconds = row["train_seconds"] + row["criterion_seconds"]
    return Pace(max(seconds / (row["epochs"] * row["train_samples"]), 1e-9), float(row["epochs"]))


def _pilot(question: Question, samples: int) -> dict[str, Any]:
    return question.scenario("pilot", question.past(samples), {REFERENCE: {}}, [0], chunk=samples, rounds=1)


def _step_seconds(player: Player, raw: Mapping[str, Any]) -> tuple[int, float]:
    """The samples of a batch, and the seconds of a step, measured alone."""
    _, cells = scenarios.plan(raw, "pilot")
    import_user_modules(cells, "advise")
    times = step_times(cells, ExecutionSettings(player.data_root, player.options.device))
    batch = cells[0].arm.training.batch_size
    return batch, max((each.seconds(1, batch, 0) for each in times.values()), default=1e-6)


def choose(player: Player, plan: Plan, margin: float) -> Choice:
    """Compares settings in the rounds before the later ones, and drops half of them after each stage.

    Random init is never dropped. Samples of later rounds are not used, and accuracies are those on samples that were
    held out of the past.
    """
    settings = list(SETTINGS[: plan.rungs[0][0]])
    name = f"choosing_{plan.shape}"
    data = player.question.past(plan.chunk * plan.first_later, HELD_OUT)
    deadline = player.deadline - (1 - CHOOSING) * 60 * player.minutes
    tried, table = dict.fromkeys((each.label for each in settings), 0), None
    for count, seeds in plan.rungs:
        settings = settings[:count]
        arms = {REFERENCE: {}, **{each.label: each.arm for each in settings}}
        raw = player.question.scenario(
            name, data, arms, range(seeds), chunk=plan.choosing_chunk, rounds=plan.first_later
        )  # fmt: skip
        complete = player.play(name, raw, deadline)
        found = player.tables(name)
        if found is None:
            break
        rows = found.rounds[found.rounds["strategy"].astype(str).isin(arms) & (found.rounds["seed"] < seeds)]
        stage = compare(rows, 1)
        order = ranked(stage, margin)
        tried |= {each.label: int(_pairs(stage, each.label)) for each in settings}
        if order:
            table = stage
            settings = sorted(
                (each for each in settings if each.label in order), key=lambda each: order.index(each.label)
            )
        if not complete or not order:
            return Choice(settings[0] if order else None, tried, table, cut_short=True)
    return Choice(settings[0] if table is not None else None, tried, table, cut_short=table is None)


def _pairs(stage: pd.DataFrame, label: str) -> float:
    return float(stage.loc[stage["strategy"] == label, "pairs"].sum())


def check(player: Player, plan: Plan, setting: Setting) -> pd.DataFrame | None:
    """Plays all rounds with seeds that did not choose, and compares in the later rounds, on the test samples.

    It goes on with more seeds, up to `MOST_CHECKED`, while there is time; that depends on no result.

    Returns:
        From `halving.compare`, with columns `trend` and `trend_error`; None if no seed is complete.
    """
    name = f"check_{plan.shape}"
    arms = {REFERENCE: {}, setting.label: setting.arm}
    seeds, started = plan.check_seeds, time.monotonic()
    while True:
        raw = player.question.scenario(
            name, player.question.past(plan.samples), arms, range(CHECK_SEED, CHECK_SEED + seeds), chunk=plan.chunk,
            rounds=plan.rounds,
        )  # fmt: skip
        complete = player.play(name, raw, player.deadline)
        seconds_a_seed = 1.2 * (time.monotonic() - started) / seeds
        more = min(MOST_CHECKED - seeds, math.floor(player.seconds_left / seconds_a_seed))
        if not complete or more < 1:
            return checked(player, plan, setting)
        seeds += more


def checked(player: Player, plan: Plan, setting: Setting) -> pd.DataFrame | None:
    """What the check has shown so far; see `check`."""
    found = player.tables(f"check_{plan.shape}")
    if found is None:
        return None
    rows = found.rounds[found.rounds["strategy"].astype(str).isin([REFERENCE, setting.label])]
    table = compare(rows, plan.first_later)
    if not (table.loc[table["strategy"] == setting.label, "pairs"] > 0).any():
        return None
    change, error = trend(rows[rows["cell_complete"].astype(bool)], setting.label, plan.first_later)
    return table.assign(trend=change, trend_error=error)
