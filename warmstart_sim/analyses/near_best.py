"""How much of a grid of settings is nearly as good as the best of them (Zaidi et al. 2022, section 5.4, Figure 4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.experiment.stored_run import StoredRun
from warmstart_sim.registry import ANALYSES
from warmstart_sim.results.columns import Row


@ANALYSES.register(
    "near_best",
    columns={"settings": "settings", "share": "fraction", "best": "fraction", "worst": "fraction"},
)
def near_best(
    run: StoredRun,
    /,
    *,
    over: Annotated[tuple[str, ...], Field(min_length=1)] | None = None,
    margin: Annotated[float, Field(ge=0)] = 1.0,
) -> Iterator[Row]:
    """The share of each arm's settings whose final accuracy is within a point of the arm's best setting.

    share = (number of settings with accuracy >= best - margin) / (number of settings), where a setting's accuracy is
    the mean over seeds. The larger it is, the less an arm depends on its learning rate and weight decay: Zaidi et al.
    2022 (section 5.4) say "more robust" and show heatmaps. A setting of which a seed diverged or gave up counts as one
    that is not near; settings that are not finished are left out. Where `select` tunes keys, all settings count.

    Args:
        run: The run.
        over: The varied keys whose combinations are the settings. Default: all.
        margin: How far below the best a setting may be, in points. Default 1.

    Columns:
        For each arm and each combination of other varied values: the values of the best setting (of equal ones, the
        lowest); `settings`, how many there are; `share`; `best` and `worst`, the highest and the lowest accuracy.

    Raises:
        WarmstartError: Nothing is varied, or a key of `over` is not.
    """
    from warmstart_sim.results.columns import column_of
    from warmstart_sim.results.statistics import FAILED, NOISE_DIGITS

    tables = run.tables.every or run.tables
    if not tables.axes:
        raise WarmstartError("near_best compares settings, and this run has one; vary a key, such as the learning rate")
    chosen = [column_of(key, tables.scenario["strategies"]) for key in over or tables.axes]
    for key, column in zip(over or (), chosen, strict=False):
        if column not in tables.axes:
            raise WarmstartError(f"near_best.over: {unknown('varied key', key, tables.axes)}")
    keys = ["strategy", *tables.axes]
    finished = tables.cells[tables.cells["state"] != "unfinished"]
    seeds = finished.assign(failed=finished["state"].isin(FAILED)).groupby(keys, dropna=False, observed=True)
    accuracy = seeds["final_accuracy"].mean().round(NOISE_DIGITS).mask(seeds["failed"].any())
    settings = accuracy.rename("accuracy").reset_index()
    groups = ["strategy", *(axis for axis in tables.axes if axis not in chosen)]
    for _, group in settings.groupby(groups, dropna=False, observed=True, sort=False):
        best = group["accuracy"].max()
        if best != best:  # all have failed
            continue
        first = group[group["accuracy"] == best].iloc[0]
        yield {
            **{key: first[key] for key in keys},
            "settings": len(group),
            "share": ((best - group["accuracy"]).round(NOISE_DIGITS) <= margin / 100).mean(),
            "best": best,
            "worst": group["accuracy"].min(),
        }
