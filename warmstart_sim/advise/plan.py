"""Fits rounds, settings and seeds into a budget of time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from warmstart_sim.errors import WarmstartError
from warmstart_sim.report.wording import duration

HELD_OUT = 0.2  # of the past, for choosing among settings
LATER = 0.3  # share of the rounds that only the check sees
ROUNDS = (8, 6, 5, 4, 3)  # from the most that is worth its time to the fewest with a later round
FEWEST_ROUNDS, FEWEST_IN_ROUND = 3, 20
SHARES = (1, 2, 4, 8, 16, 32)  # of the data: all, half, ...
CHOOSING = 0.6  # share of the budget; the rest is for the check
MOST_CHECKED = 10  # seeds
# (settings, seeds of the check), from the best; those below ENOUGH only where nothing better fits.
ENOUGH = ((9, 6), (6, 5), (4, 5))
LITTLE = ((4, 3), (2, 3), (2, 2))
ROUND_SECONDS = 0.1  # of a round, beside its epochs


@dataclass(frozen=True)
class Pace:
    """How long training takes here.

    Attributes:
        sample_seconds: Of one sample in one epoch, checks of the stop rule included.
        epochs: Of a round.
    """

    sample_seconds: float
    epochs: float

    def cell_seconds(self, sizes: Sequence[int]) -> float:
        """The seconds of a cell of random init, whose rounds have so many samples."""
        return sum(self.sample_seconds * self.epochs * size + ROUND_SECONDS for size in sizes)


@dataclass(frozen=True)
class Plan:
    """What is played.

    Attributes:
        samples: How many of the training samples.
        rounds: In how many rounds they arrive; the last ones are for the check.
        rungs: (settings, seeds) of each stage of choosing: so many settings have been trained with so many seeds.
        check_seeds: With how many seeds the choice is checked at least.
        seconds: About how long it takes.
    """

    samples: int
    rounds: int
    rungs: tuple[tuple[int, int], ...]
    check_seeds: int
    seconds: float

    @property
    def chunk(self) -> int:
        """How many samples arrive with each round."""
        return self.samples // self.rounds

    @property
    def shape(self) -> str:
        """Rounds and their samples, for the names of folders."""
        return f"{self.rounds}x{self.chunk}"

    @property
    def first_later(self) -> int:
        """The index of the first round that only the check sees."""
        return self.rounds - max(1, round(LATER * self.rounds))

    @property
    def choosing_chunk(self) -> int:
        """How many samples arrive with each round of choosing; the others of a chunk are held out."""
        return max(1, int((1 - HELD_OUT) * self.chunk))

    @property
    def choosing_sizes(self) -> list[int]:
        """The training samples of each round in which settings are compared."""
        return [self.choosing_chunk * (index + 1) for index in range(self.first_later)]

    @property
    def check_sizes(self) -> list[int]:
        """The training samples of each round of the check."""
        return [self.chunk * (index + 1) for index in range(self.rounds)]


def rungs(settings: int) -> tuple[tuple[int, int], ...]:
    """Successive halving: two seeds for all settings, then twice as many for half of them, while two are left.

    >>> rungs(9), rungs(2)
    (((9, 2), (5, 4), (3, 8)), ((2, 2),))
    """
    found, seeds = [], 2
    while settings > 1 and seeds <= 8:
        found.append((settings, seeds))
        settings, seeds = math.ceil(settings / 2), 2 * seeds
    return tuple(found)


def make_plan(
    count: int, pace: Pace, seconds: float, workers: int = 1, rounds: int | None = None, chunk: int | None = None
) -> Plan:
    """The most that fits into a budget: all of the data, many rounds and settings, or less of them.

    Args:
        count: The training samples that there are.
        pace: How long training takes.
        seconds: The budget.
        workers: How many cells are trained at a time.
        rounds: The user's number of rounds, if there is one.
        chunk: The user's number of samples in a round.

    Raises:
        WarmstartError: There are fewer samples than the rounds need, or nothing fits; the message says how much does.
    """
    plans = [
        _planned(pace, workers, samples, in_rounds, *size)
        for sizes in (ENOUGH, LITTLE)
        for samples, in_rounds in shapes(count, rounds, chunk)
        for size in sizes
    ]
    for plan in plans:
        if plan.seconds <= seconds:
            return plan
    least = min(plans, key=lambda plan: plan.seconds)
    raise WarmstartError(
        f"--minutes {seconds / 60:g}: too little for one comparison; the smallest, {least.rungs[0][0]} starts in "
        f"{least.rounds} rounds of {least.chunk} samples with two seeds, needs about {duration(least.seconds)}: give "
        f"--minutes {math.ceil(least.seconds / 60)}, fewer samples (--chunk, --rounds, --set data.test_samples=N) or a "
        "quicker model"
    )


def shapes(count: int, rounds: int | None = None, chunk: int | None = None) -> Iterator[tuple[int, int]]:
    """(samples, rounds) from the largest past to the smallest that may be played.

    Raises:
        WarmstartError: There are too few samples.
    """
    least = f"at least {FEWEST_ROUNDS} rounds are needed: the first, one to choose in, and a later one for the check"
    if rounds is not None and rounds < FEWEST_ROUNDS:
        raise WarmstartError(f"--rounds {rounds}: {least}")
    if chunk is not None:
        most = count // chunk
        if most < (rounds or FEWEST_ROUNDS):
            raise WarmstartError(
                f"--chunk {chunk}: the {count} training samples are {most or 'fewer than one'} round"
                f"{'s' if most > 1 else ''} of that size; {least if not rounds else f'--rounds asks for {rounds}'}"
            )
        yield from ((chunk * each, each) for each in _in_turn(rounds, most))
        return
    fewest = min(FEWEST_IN_ROUND, count // (rounds or FEWEST_ROUNDS))
    if fewest < 2:
        raise WarmstartError(f"{count} training samples are too few for {rounds or FEWEST_ROUNDS} rounds; {least}")
    for divisor in SHARES:
        samples = count // divisor
        for each in _in_turn(rounds, samples // fewest):
            yield samples - samples % each, each


def _in_turn(rounds: int | None, most: int) -> list[int]:
    return [each for each in ([rounds] if rounds else ROUNDS) if each <= most]


def _planned(pace: Pace, workers: int, samples: int, rounds: int, settings: int, check_seeds: int) -> Plan:
    plan = Plan(samples, rounds, rungs(settings), check_seeds, 0.0)
    choosing = pace.cell_seconds(plan.choosing_sizes) * cells_of(plan.rungs)
    check = pace.cell_seconds(plan.check_sizes) * 2 * check_seeds
    at_a_time = 1 if workers == 1 else 0.85 * workers  # two workers on two cores are 1.7 times as fast
    needed = max(choosing / CHOOSING, check / (1 - CHOOSING))  # so that each keeps to its share of the budget
    return Plan(samples, rounds, plan.rungs, check_seeds, needed / at_a_time)


def cells_of(stages: Sequence[tuple[int, int]]) -> int:
    """The cells that choosing trains, those of random init included.

    >>> cells_of(rungs(4)), cells_of(rungs(2))
    (16, 6)
    """
    before, cells = 0, 0
    for settings, seeds in stages:
        cells += (settings + 1) * (seeds - before)
        before = seeds
    return cells
