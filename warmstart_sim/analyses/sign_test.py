"""Which method beats which over many settings: exact binomial tests (Alabdulmohsin et al. 2021, Table 3)."""

from __future__ import annotations

from collections.abc import Iterator

from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.experiment.stored_run import StoredRun
from warmstart_sim.registry import ANALYSES
from warmstart_sim.results.columns import Row, column_of


@ANALYSES.register(
    "sign_test",
    columns={
        "wins": "settings", "ties": "settings", "losses": "settings", "p": "0 to 1", "p_holm": "0 to 1",
        "significance": "tests passed",
    },
)  # fmt: skip
def sign_test(run: StoredRun, /, *, per: str | None = None) -> Iterator[Row]:
    """Exact binomial test of each arm against each other, over the settings of the run.

    A setting is a combination of varied values; it counts once, by the mean difference of final accuracies over the
    seeds that both arms completed. Over W wins and L losses (ties are left out), a fair coin gives two-sided

        p = P(|X - n/2| >= |W - n/2|), X ~ Binomial(n, 1/2), n = W + L.

    `p_holm` is corrected by Holm's method within the tests of one arm against all others. Source: Alabdulmohsin et al.
    2021, Table 3 (a star is significance 1, a circle 2), after Demšar 2006.

    Args:
        run: The run.
        per: A varied key, such as model.name: each of its values has tests of its own. Default: none.

    Columns:
        The value of `per`, `strategy`, `versus`; `wins`, `ties` and `losses` of the first of the two; `p`, `p_holm`;
        `significance`, 1 if the first wins more often with p < 0.05, 2 if p_holm < 0.05 as well, else 0.

    Raises:
        WarmstartError: Nothing else is varied, the key is not, or an arm has several accuracies in a setting.
    """
    from warmstart_sim.analyses._settings import common_axes, final_accuracies
    from warmstart_sim.results.sign_tests import sign_tests

    axes, accuracies = common_axes(run.tables), final_accuracies(run.tables).droplevel("seed")
    if per is None:
        yield from sign_tests(accuracies)
        return
    column = column_of(per)
    if column not in axes:
        raise WarmstartError(f"sign_test.per: {unknown('varied key', per, axes)}")
    for value, group in accuracies.groupby(level=column, sort=False, observed=True):
        yield from ({column: value, **row} for row in sign_tests(group))
