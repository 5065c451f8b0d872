"""How much of the weights that a round started from is left at its end (Ash & Adams 2020, Figures 11 and 33)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from warmstart_sim.experiment.stored_run import StoredRun
from warmstart_sim.registry import ANALYSES
from warmstart_sim.results.columns import Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from warmstart_sim.experiment.stored_cell import StoredCell
    from warmstart_sim.types import StateDict


@ANALYSES.register(
    "correlation_with_start",
    "needs_weights",
    columns={
        "pearson": "-1 to 1", "spearman": "-1 to 1", "cosine": "-1 to 1", "validation_accuracy": "fraction",
        "test_accuracy": "fraction",
    },
    figure={
        "kind": "scatter", "x": "pearson", "title": "Accuracy against the correlation of last weights with the start",
        "caption": "Pearson's correlation of all parameters, at the end and at the start of the last round.",
    },
)  # fmt: skip
def correlation_with_start(run: StoredRun, /) -> Iterator[Row]:
    """Correlation between each cell's last weights and those that its last round started from, beside its accuracy.

    All parameters count as one vector, weights, biases and normalisation layers alike. The start is what the strategy
    made of the first phase's weights; for random init it is the fresh initialisation of the round, drawn again from the
    seed. Pearson's r, Spearman's rho (Pearson's r of the ranks; equal values share their mean rank), and the cosine
    (Pearson's r without subtracting means). Source: Ash & Adams 2020, Figure 11 (Pearson) and Figure 33.

    Args:
        run: The run. In streams with more than one round after the first phase, only random init has a start that can
            be made again.

    Columns:
        `pearson`, `spearman`, `cosine`, empty where one of the two is constant; `validation_accuracy` and
        `test_accuracy` of the last round.
    """
    for cell in run.cells():
        now, start = (as_vector(weights, cell) for weights in (cell.weights, cell.start()))
        accuracies = {name: cell.row[name] for name in ("validation_accuracy", "test_accuracy")}
        yield {**cell.identity, **correlations(now, start), **accuracies}


def as_vector(weights: StateDict, cell: StoredCell) -> NDArray[np.float64]:
    """All parameters as one vector, tied ones under each of their names."""
    names = sorted(cell.layout.parameters)
    return np.concatenate([weights[name].detach().double().flatten().cpu().numpy() for name in names])


def correlations(one: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, float | None]:
    """Pearson's, Spearman's and the cosine correlation of two vectors.

    >>> round(correlations(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]))["spearman"], 12)
    1.0
    """
    from scipy.stats import rankdata

    ranks = rankdata(one), rankdata(other)
    return {
        "pearson": cosine(one - one.mean(), other - other.mean()),
        "spearman": cosine(*(each - each.mean() for each in ranks)),
        "cosine": cosine(one, other),
    }


def cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """<one, other> / (||one|| ||other||); None where one of them is zero."""
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else None
