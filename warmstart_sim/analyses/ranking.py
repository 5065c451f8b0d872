"""Ranks arms by accuracy at equal time and by time at equal accuracy, and says whose gain is noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.experiment.stored_run import StoredRun
from warmstart_sim.registry import ANALYSES
from warmstart_sim.results.columns import Row


@ANALYSES.register(
    "ranking",
    columns={
        "mean_rank": "rank", "accuracy": "fraction", "difference": "fraction", "difference_low": "fraction",
        "difference_high": "fraction", "p_holm": "p", "time_rank": "rank", "time_ratio": "ratio",
        "time_ratio_low": "ratio", "time_ratio_high": "ratio", "time_p_holm": "p", "reached": "seeds",
        "seeds": "seeds", "final_accuracy": "fraction", "equal_seconds": "s", "equal_accuracy": "fraction",
    },
)  # fmt: skip
def ranking(
    run: StoredRun,
    /,
    *,
    to: str | None = None,
    seconds: Annotated[float, Field(gt=0)] | None = None,
    accuracy: Annotated[float, Field(gt=0, le=1)] | None = None,
) -> Iterator[Row]:
    """Arms by their accuracy at equal time and their time at equal accuracy, with paired tests against the reference.

    A cell has a point (train seconds so far, accuracy) at the end of each round; without a usable estimate of its
    seconds, its steps count what a step of the arm takes in other seeds, or else the measured seconds do. Its accuracy
    at a time lies on the line through these points, and so does the time at which it first reaches an accuracy. Over
    the n seeds that all k arms completed, an arm's difference from the reference has a paired t-test, adjusted for all
    arms by Holm's method: gain and loss are p_holm < 0.05, all else is noise. Within a seed the arms are ranked by
    accuracy at equal time; arms whose mean ranks differ by no more than the critical difference share a letter (Demšar
    2006, section 3.2.2):

        CD = q(0.95; k, inf) / sqrt(2) sqrt(k (k + 1) / (6 n)).

    Args:
        run: The run.
        to: The label of the arm to compare with. Default: the report's reference, random init.
        seconds: The equal time. Default: the mean total of the arm that trains least.
        accuracy: The equal accuracy. Default: the mean final accuracy of the arm that ends lowest.

    Columns:
        For each setting, in the order of the mean ranks: `rank`, `strategy`, `groups`, `verdict`, `mean_rank`;
        `accuracy` at equal time, its `difference` from the reference with the ends of its Holm-adjusted interval and
        `p_holm`; `time_rank` by the median time at equal accuracy, where never is the longest; `time_ratio` to the
        reference (a geometric mean over the seeds in which both reach it) with its interval and `time_p_holm`;
        `reached`, in how many of the `seeds`; `final_accuracy`; `equal_seconds` and `equal_accuracy`, at which arms are
        compared.

    Raises:
        WarmstartError: There is no such arm.
    """
    from warmstart_sim.results.ranking import known_seconds, rank_arms

    tables, arms = run.tables, list(run.tables.scenario["strategies"])
    if to is not None and to not in arms:
        raise WarmstartError(f"ranking.to: {unknown('arm', to, arms)}")
    keys = ["strategy", *tables.axes, "seed"]
    complete = tables.cells.loc[tables.cells["state"] == "complete", keys]
    rounds = tables.rounds.assign(
        accuracy=tables.rounds[tables.metric], seconds=known_seconds(tables.rounds, keys[:-1])
    )
    rounds = rounds[~rounds["shared"].astype(bool)].merge(complete, on=keys).astype({"strategy": str})
    for varied, rows in tables.by_setting(rounds):
        for row in rank_arms(rows, to or tables.reference, seconds, accuracy):
            yield {**varied, **row}
