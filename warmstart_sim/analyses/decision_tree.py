"""A decision tree that predicts the best method from the design of an experiment (Alabdulmohsin et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from warmstart_sim.datasets.known_sizes import IMAGE_SETS, PHOTO_SETS, TEXT_SETS
from warmstart_sim.experiment.stored_run import StoredRun
from warmstart_sim.registry import ANALYSES
from warmstart_sim.results.columns import Row

if TYPE_CHECKING:
    import pandas as pd

    from warmstart_sim.results.tables import Run

CLASSES: Mapping[str, int] = {
    **{name: each.classes for name, each in IMAGE_SETS.items()},
    **{name: each.classes for name, each in PHOTO_SETS.items()},
    **{name: each.classes for name, each in TEXT_SETS.items()},
}


@ANALYSES.register("decision_tree", columns={"best": "settings", "share": "fraction", "gini": "0 to 1"})
def decision_tree(
    run: StoredRun, /, *, depth: Annotated[int, Field(ge=1)] = 4, leaf: Annotated[int, Field(ge=1)] = 7
) -> Iterator[Row]:
    """A decision tree that predicts the most accurate arm from the varied values.

    A setting is a combination of varied values. Its best arm is the one with the highest mean final accuracy; if
    several tie, it counts once for each. Settings that not all arms have completed are left out. The features are the
    varied values, the number of training samples and that of classes (of data sets known by name) in place of the data
    set's name, as far as they differ between settings. Nodes are split by the Gini index. Source: Alabdulmohsin et al.
    2021, section 3.1 and Figure 3 (scikit-learn's tree of depth 4 and at least 7 settings in a leaf). The report draws
    it.

    Args:
        run: The run.
        depth: The most questions on the way to a leaf. Default 4.
        leaf: The fewest settings in a leaf. Default 7.

    Columns:
        A row for each leaf: `rule`, the conditions that lead there; `strategy`, the arm that is best most often;
        `best`, how many times an arm is best there; `share`, that of `strategy`; `gini` = 1 - sum over arms of
        share^2; `arms`, how often each is best.

    Raises:
        WarmstartError: Nothing is varied, or an arm has several accuracies in a setting.
    """
    from warmstart_sim.analyses._settings import common_axes, final_accuracies
    from warmstart_sim.results.decision_tree import fit, leaves

    accuracies = final_accuracies(run.tables)
    settings = accuracies.groupby(level=common_axes(run.tables), sort=False, observed=True).mean().dropna()
    if settings.empty:
        return
    yield from leaves(fit(designs(run.tables, settings), settings, depth, leaf))


def designs(run: Run, settings: pd.DataFrame) -> pd.DataFrame:
    """The features of each setting, for the rows of `settings`."""
    axes = list(settings.index.names)
    last = run.rounds.drop_duplicates(axes, keep="last")[[*axes, "train_samples", "dataset"]]
    features = settings.index.to_frame(index=False).merge(last, on=axes, how="left")
    features = features.drop(columns="data_name", errors="ignore")
    features["classes"] = features["dataset"].map(CLASSES)
    features = features.drop(columns="dataset" if features["classes"].notna().all() else "classes")
    return features.loc[:, features.nunique() > 1]
