"""The accuracies of a run by setting, for analyses that compare arms over many settings."""

from __future__ import annotations

import pandas as pd

from warmstart_sim.errors import WarmstartError
from warmstart_sim.results.tables import Run


def common_axes(run: Run) -> list[str]:
    """The columns of varied values that tell settings apart.

    Raises:
        WarmstartError: There is none, or an option of a single arm is varied, so that arms have several accuracies in
            a setting.
    """
    axes = [axis for axis in run.axes if axis in run.common_axes]
    if own := [axis for axis in run.axes if axis not in axes]:
        raise WarmstartError(
            f"{', '.join(own)}: varied for some arms only, so that these have several accuracies in one setting; let "
            "the scenario's `select` choose one"
        )
    if not axes:
        raise WarmstartError("arms are compared over settings, and this run has one; vary a key, such as data.name")
    return axes


def final_accuracies(run: Run) -> pd.DataFrame:
    """Final accuracies of complete cells: a row for each setting and seed (the index), a column for each arm."""
    complete = run.cells[run.cells["state"] == "complete"].astype({"strategy": str})
    table = complete.pivot(index=[*common_axes(run), "seed"], columns="strategy", values="final_accuracy")
    return table[[arm for arm in run.scenario["strategies"] if arm in table]]
