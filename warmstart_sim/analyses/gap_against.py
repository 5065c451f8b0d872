"""How far arms stay behind the reference, against a varied key (Ash & Adams 2020, Figures 4 and 10)."""

from __future__ import annotations

from collections.abc import Iterator

from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.experiment.stored_run import StoredRun
from warmstart_sim.registry import ANALYSES
from warmstart_sim.results.columns import Row


@ANALYSES.register(
    "gap_against",
    columns={"pairs": "seeds", "gap": "fraction", "gap_low": "fraction", "gap_high": "fraction"},
)
def gap_against(run: StoredRun, /, *, axis: str | None = None, to: str | None = None) -> Iterator[Row]:
    """Final accuracy of the reference minus that of each arm with the same seed, for every value of a varied key.

    gap = mean over seeds of (accuracy_reference - accuracy_arm), with its 95 % t-interval: the "damage" of Ash & Adams
    2020 (Figure 4, against `stream.first_phase_epochs`; Figure 10, against `stream.fraction`). The numbers are those of
    summary.csv with the other sign, and the report draws them against every varied number without this analysis.

    Args:
        run: The run.
        axis: The varied key, such as stream.fraction. Default: the first one.
        to: The label of the arm to compare with. Default: the report's reference, random init.

    Columns:
        `pairs`: seeds that both arms completed; `gap`; `gap_low` and `gap_high`, empty with one seed.

    Raises:
        WarmstartError: The key is not varied, or there is no such arm.
    """
    from warmstart_sim.results.columns import column_of
    from warmstart_sim.results.statistics import summary

    tables, arms = run.tables, list(run.tables.scenario["strategies"])
    if not tables.axes:
        raise WarmstartError("gap_against needs a varied key, and this run varies none")
    column = column_of(axis or tables.axes[0], arms)
    if column not in tables.axes:
        raise WarmstartError(f"gap_against.axis: {unknown('varied key', axis, tables.axes)}")
    if to is not None and to not in arms:
        raise WarmstartError(f"gap_against.to: {unknown('arm', to, arms)}")
    reference = to or tables.reference
    for row in summary(tables.rounds, tables.axes, tables.metric, reference).to_dict("records"):
        if row["strategy"] != reference and row[column] == row[column] and row["pairs"]:
            yield {
                **{name: row[name] for name in ("strategy", *tables.axes, "pairs")},
                "gap": 0 - row["difference"],  # -0.0 would look like a gap
                "gap_low": 0 - row["difference_high"],
                "gap_high": 0 - row["difference_low"],
            }
