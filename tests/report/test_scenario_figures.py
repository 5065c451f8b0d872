"""Figures that a scenario asks for draw the numbers of the tables; what cannot be drawn is said on the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_runs import write_run
from made_grids import with_failures, write_grid

from warmstart_sim import report
from warmstart_sim.report import style
from warmstart_sim.report.comparisons import cell_values
from warmstart_sim.report.figures import REHEARSAL, draw_figures
from warmstart_sim.report.scenario_figures import analysis_figures
from warmstart_sim.report.style import ReportFigure
from warmstart_sim.results.tables import Run, load

pytestmark = pytest.mark.xdist_group("scenario_figures")  # its fixtures are made in one process

LAMBDA = {"strategies.shrink_perturb.lambda": [1.0, 0.6, 0.0]}
FRACTION = {"stream.fraction": [0.1, 0.5]}
WARM = style.PALETTE[0]


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load(write_run(tmp_path_factory.mktemp("online"), seeds=3, vary=LAMBDA))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load(write_run(tmp_path_factory.mktemp("split"), stream="split", seeds=3, vary=FRACTION))


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load(write_grid(tmp_path_factory.mktemp("grid"), tweak=with_failures))


def asking(run: Run, *figures: Mapping[str, Any], **changes: Any) -> Run:
    scenario = {**run.scenario, "figures": list(figures), "standard_figures": False, **changes}
    return replace(run, scenario=scenario)


def draw(run: Run, published: pd.DataFrame | None = None, **figure: Any) -> ReportFigure:
    """The only figure that these settings ask for."""
    (drawn,) = draw_figures(asking(run, figure), published)
    return drawn


def panels(figure: ReportFigure) -> dict[str, Any]:
    return {ax.get_title(loc="left"): ax for ax in figure.figure.axes}


def line(ax: Any, color: str, dashed: bool = False) -> Any:
    """The mean in this colour; seeds and bars are thinner."""
    means = [each for each in ax.lines if each.get_color() == color and each.get_linewidth() == 2]
    return next(each for each in means if (each.get_linestyle() == "--") == dashed)


def legend(figure: ReportFigure) -> list[str]:
    return [text.get_text() for text in figure.figure.legends[0].get_texts()]


def own_rounds(run: Run, arm: str) -> pd.DataFrame:
    return run.rounds[(run.rounds["strategy"] == arm) & ~run.rounds["shared"].astype(bool)]


def test_several_columns_are_panels_with_means_over_seeds(online: Run):
    figure = draw(online, kind="curves", y=["validation_accuracy", "steps", "difference"])
    axs, rounds = panels(figure), own_rounds(online, "warm_start")
    assert list(axs) == ["validation accuracy", "steps", "difference from random init"]
    means = rounds.groupby("round").mean(numeric_only=True)
    np.testing.assert_allclose(line(axs["steps"], WARM).get_ydata(), means["steps"])
    np.testing.assert_allclose(line(axs["validation accuracy"], WARM).get_ydata(), 100 * means["validation_accuracy"])
    base = own_rounds(online, "random_init").set_index(["round", "seed"])["validation_accuracy"]
    gap = rounds.set_index(["round", "seed"])["validation_accuracy"] - base
    np.testing.assert_allclose(
        line(axs["difference from random init"], WARM).get_ydata(), 100 * gap.groupby("round").mean()
    )
    assert axs["validation accuracy"].get_ylabel() == "validation accuracy (%)"
    assert "Mean over 3 seeds; the band is the 95 % confidence interval" in figure.caption


def test_without_y_among_the_panels_columns_are_lines(online: Run):
    figure = draw(online, kind="curves", x="round", y=["epochs", "steps"], panels=["strategy"], log=["y"])
    assert list(panels(figure)) == ["random init", "warm start", "shrink perturb (σ = 0.1)"]
    assert legend(figure)[:2] == ["epochs", "steps"]
    ax = panels(figure)["warm start"]
    assert ax.get_yscale() == "log"
    rounds = own_rounds(online, "warm_start").groupby("round")[["epochs", "steps"]].mean()
    for index, column in enumerate(rounds):
        drawn = next(each for each in ax.lines if each.get_color() == style.PALETTE[index])
        np.testing.assert_allclose(drawn.get_ydata(), rounds[column])


def test_epochs_of_chosen_rounds_are_drawn(split: Run):
    figure = draw(split, kind="curves", x="epoch", y="running_train_accuracy", rounds=[1])
    ax = panels(figure)["first fraction = 0.1"]
    drawn = line(ax, style.INK)
    epochs = split.epochs.query("strategy == 'random_init' and round == 1 and stream_fraction == 0.1")
    assert drawn.get_xdata()[0] == 1
    assert len(drawn.get_xdata()) == epochs["epoch"].max()
    assert drawn.get_ydata()[0] == pytest.approx(100 * epochs.query("epoch == 1")["running_train_accuracy"].mean())
    assert "first phase" not in "".join(legend(figure))


def test_where_keeps_the_rows_with_these_values_and_arms_without_the_key(online: Run):
    figure = draw(online, kind="curves", where={"lambda": [0.6, 0], "seed": [0, 1]})
    assert legend(figure) == ["random init", "warm start", "λ = 0", "λ = 0.6"]
    rounds = own_rounds(online, "warm_start").query("seed < 2").groupby("round")["validation_accuracy"].mean()
    np.testing.assert_allclose(line(figure.figure.axes[0], WARM).get_ydata(), 100 * rounds)


def test_an_axis_has_the_means_of_the_cells_and_arms_without_it_are_horizontal(online: Run):
    figure = draw(online, kind="against", x="strategies.shrink_perturb.lambda", y="epochs")
    (ax,) = figure.figure.axes
    sums = online.rounds.groupby(["strategy", "lambda", "seed"], dropna=False, observed=True)["epochs"].sum()
    (bars,) = ax.containers
    np.testing.assert_allclose(bars[0].get_ydata(orig=False), sums["shrink_perturb"].groupby("lambda").mean())
    horizontal = line(ax, WARM)
    assert horizontal.get_ydata()[0] == pytest.approx(sums["warm_start"].mean())
    assert "An arm without λ is a horizontal line." in figure.caption


def test_columns_with_a_number_are_drawn_against_it(online: Run):
    spread = {f"change_{text}": online.rounds["steps"] * factor for text, factor in {"0_5": 1.0, "2": 3.0}.items()}
    figure = draw(replace(online, rounds=online.rounds.assign(**spread)), kind="against", x="noise", y="change_*")
    (ax,) = figure.figure.axes
    last = online.rounds.query("strategy == 'warm_start' and round == 5")["steps"].mean()
    drawn = next(each[0] for each in ax.containers if each[0].get_color() == WARM)
    np.testing.assert_allclose(drawn.get_xdata(orig=False), [0.5, 2])
    np.testing.assert_allclose(drawn.get_ydata(orig=False), [last, 3 * last])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("noise", "change")


def test_a_cloud_has_one_arm_against_another_with_the_same_seed(online: Run):
    where = {"strategy": ["warm_start"]}
    figure = draw(online, kind="scatter", x="validation_accuracy of random_init", where=where)
    (ax,) = figure.figure.axes
    final = online.rounds[online.rounds["round"] == 5].set_index(["strategy", "seed"])["validation_accuracy"]
    points = next(each for each in ax.lines if each.get_marker() not in ("None", "")).get_xydata()
    expected = 100 * np.column_stack([final["random_init"], final["warm_start"]])
    np.testing.assert_allclose(sorted(points.tolist()), sorted(expected.tolist()))
    assert ax.get_xlabel() == "validation accuracy of random init (%)"


def test_a_round_can_be_chosen(online: Run):
    values = cell_values(online, round_=2).set_index(["strategy", "lambda", "seed"])["epochs"]
    expected = online.rounds.query("round == 2").set_index(["strategy", "lambda", "seed"])["epochs"]
    pd.testing.assert_series_equal(values.sort_index(), expected.sort_index())


def test_published_numbers_are_hollow_markers_at_their_value(split: Run):
    table = pd.DataFrame(
        {
            "strategy": ["warm_start", "warm_start", "nobody"], "stream_fraction": [0.1, 0.5, 0.1],
            "metric": ["validation_accuracy", "test_accuracy", "validation_accuracy"],
            "value": [0.5, 0.9, 0.1], "low": [0.48, np.nan, 0], "high": [0.52, np.nan, 1],
        }
    )  # fmt: skip
    figure = draw(split, table, kind="against", x="stream.fraction")
    hollow = [each for each in figure.figure.axes[0].lines if each.get_markerfacecolor() == "none"]
    points = [(x, y) for each in hollow for x, y in each.get_xydata()]
    assert points == [(0.1, pytest.approx(50))]
    assert "Hollow markers" in figure.caption
    standard = {each.name: each for each in draw_figures(replace(split, scenario=dict(split.scenario)), table)}
    assert "Hollow markers" in standard["along_stream_fraction"].caption
    table = table.assign(strategy="random_init", stream_fraction=np.nan)
    figure = draw(split, table, kind="against", x="stream.fraction")
    assert "Hollow" not in figure.caption  # random init has the axis, and the number no place on it
    assert "Hollow" not in draw(split, kind="against", x="stream.fraction").caption


def test_published_numbers_end_learning_curves_and_horizontal_lines(online: Run):
    table = pd.DataFrame(
        {
            "strategy": ["warm_start"],
            "lambda": [np.nan],
            "metric": "validation_accuracy",
            "value": [0.7],
            "low": [np.nan],
        }
    ).assign(high=np.nan)
    along, *curves = draw_figures(asking(online, {"kind": "against", "x": "lambda"}, standard_figures=True), table)
    for figure, last in ((along, 1), (curves[0], 6000)):
        hollow = [each for each in figure.figure.axes[0].lines if each.get_markerfacecolor() == "none"]
        assert [tuple(point) for each in hollow for point in each.get_xydata()] == [(last, pytest.approx(70))]
        assert figure.caption.endswith("Hollow markers: the numbers that the paper prints.")


def test_a_scatter_has_a_point_for_each_cell(online: Run):
    figure = draw(online, kind="scatter", x="epochs")
    (ax,) = figure.figure.axes
    cells = online.rounds.query("strategy == 'warm_start'").groupby("seed")
    last = online.rounds.query("strategy == 'warm_start' and round == 5").sort_values("seed")
    (points,) = (each for each in ax.lines if each.get_color() == WARM)
    np.testing.assert_allclose(points.get_xdata(), cells["epochs"].sum())
    np.testing.assert_allclose(points.get_ydata(), 100 * last["validation_accuracy"])
    assert sum(len(each.get_xdata()) for each in ax.lines) == len(cell_values(online)) == 15


def test_a_logarithmic_axis_has_numbers_at_its_ticks_within_a_decade(online: Run):
    figure = draw(online, kind="scatter", x="epochs", log=["x", "y"])
    figure.figure.draw_without_rendering()
    low, high = figure.figure.axes[0].get_xlim()
    assert high < 10 * low
    words = [label.get_text() for label in figure.figure.axes[0].get_xticklabels()]
    assert sum(low <= float(word) <= high for word in words) > 1


def test_colours_of_a_scatter_can_be_the_values_of_a_key(online: Run):
    figure = draw(online, kind="scatter", x="train_seconds", y="steps", color="lambda")
    assert legend(figure) == ["λ = 0", "λ = 0.6", "λ = 1", "random init", "warm start"]
    assert figure.figure.axes[0].get_xlabel() == "train time (s)\ntimed beside other cells"


def test_many_values_of_a_scatter_s_key_share_colours(tmp_path: Path):
    run = load(write_run(tmp_path, stream="static", seeds=1, vary={"training.optimizer.lr": np.arange(1, 25).tolist()}))
    figure = draw(run, kind="scatter", x="epochs", color="training.optimizer.lr")
    assert legend(figure)[0] == "learning rate 1 to 4"
    assert len(legend(figure)) == 6


def test_a_heatmap_of_any_column_has_means_and_blanks(grid: Run):
    figure = draw(grid, kind="heatmap", rows="lambda", columns="sigma", value="train_loss")
    words = {text.get_text() for text in figure.figure.axes[0].texts}
    assert words == {"0.1", "gave\nup", "diverged", "not\nfinished", "not\nrun\nyet"}
    assert figure.title == "Train loss by λ and σ"
    several = draw_figures(
        asking(grid, {"kind": "heatmap", "rows": "sigma", "columns": "lambda", "value": ["steps", "difference"]})
    )
    assert [each.name for each in several] == ["figure_1_1", "figure_1_2"]


def test_learning_curves_of_a_grid_show_any_accuracy(grid: Run):
    figure = draw(grid, kind="grid_curves", rows="sigma", columns="lambda", y="train_accuracy")
    assert figure.figure.axes[0].get_ylabel() == "train accuracy (%)"
    np.testing.assert_allclose(np.concatenate([each.get_ydata() for each in figure.figure.axes[0].lines]), 99)


def test_the_table_of_an_analysis_is_drawn_with_lines_of_its_own(tmp_path: Path):
    run = load(write_run(tmp_path, stream="static", seeds=3))
    table = pd.DataFrame(
        [
            {"strategy": arm, "seed": seed, "shrinkage": lam, "policy": policy, "accuracy": lam / 2 + seed / 100}
            for arm in ("random_init", "warm_start") for seed in range(3)
            for lam in (0.2, 0.6, 1.0) for policy in ("kept", "batch")
        ]
    )  # fmt: skip
    table.to_csv(tmp_path / "shrinking.csv", index=False)
    figure = draw(run, kind="against", x="shrinkage", y="accuracy", table="shrinking", lines="policy")
    assert legend(figure) == [
        f"{arm}, policy = {each}" for arm in ("random init", "warm start") for each in ("batch", "kept")
    ]
    np.testing.assert_allclose(figure.figure.axes[0].containers[0][0].get_ydata(orig=False), [11, 31, 51])
    cloud = draw(run, kind="scatter", x="shrinkage", y="accuracy", table="shrinking", color="policy")
    assert "a point for each row of shrinking.csv" in cloud.caption


def test_an_analysis_has_its_own_figure_unless_the_scenario_draws_its_table(tmp_path: Path):
    run = load(write_run(tmp_path, stream="static", seeds=2))
    row = {"strategy": "warm_start", "pearson": 0.5, "validation_accuracy": 0.6, "test_accuracy": 0.7}
    pd.DataFrame([{**row, "seed": seed} for seed in (0, 1)]).to_csv(tmp_path / "correlation_with_start.csv")
    (tmp_path / "accuracy_against_lambda.csv").write_text("strategy,seed\nwarm_start,0\n")
    figures = {figure.name: figure for figure in analysis_figures(run)}
    assert figures.keys() == {"correlation_with_start", "accuracy_against_lambda"}
    assert figures["correlation_with_start"].title.startswith("Accuracy against the correlation")
    np.testing.assert_allclose(figures["correlation_with_start"].figure.axes[0].lines[0].get_ydata(), 60)
    assert "Not drawn: x: unknown column" in figures["accuracy_against_lambda"].caption
    own = [{"kind": "scatter", "x": "pearson", "table": "correlation_with_start"}]
    drawn = analysis_figures(replace(run, scenario={**run.scenario, "figures": own}))
    assert [figure.name for figure in drawn] == ["accuracy_against_lambda"]


@pytest.mark.parametrize(
    ("figure", "reason"),
    [
        ({"kind": "curves", "y": "validation_acuracy"}, "'validation_acuracy'; did you mean 'validation_accuracy'?"),
        ({"kind": "curves", "y": "status"}, "unknown column of rounds.csv 'status'"),
        ({"kind": "curves", "x": "epoch", "y": "difference"}, "unknown column of epochs.csv 'difference'"),
        ({"kind": "curves", "y": "test_accuracy"}, "there is nothing to draw yet"),
        ({"kind": "curves", "where": {"lambda": 7, "strategy": "shrink_perturb"}}, "there is nothing to draw yet"),
        ({"kind": "scatter", "x": "pearson", "table": "correlation"}, "correlation.csv is missing; `warmstart-sim"),
        ({"kind": "heatmap", "rows": "lambda", "columns": "sigma"}, "unknown column of rounds.csv 'sigma'"),
        ({"kind": "curve"}, "'curve'"),
        ({"kind": "against"}, "Field required"),
    ],
)  # fmt: skip
def test_a_figure_that_cannot_be_drawn_says_why(online: Run, figure: dict[str, Any], reason: str):
    card = draw(online, **figure)
    assert card.caption.startswith("Not drawn: ")
    assert reason in card.caption
    assert "Not drawn" in style.to_svg(card)


def test_figures_of_the_scenario_come_first_with_their_words(online: Run):
    own = {"kind": "curves", "title": "Mine & only <mine>", "caption": "My words."}
    for standard in (True, False):
        found = draw_figures(asking(online, own, standard_figures=standard))
        assert (found[0].name, found[0].title) == ("figure_1", own["title"])
        assert found[0].caption.startswith("My words. Validation accuracy, by training samples so far.")
        assert ([each.name for each in found[1:3]] == ["learning_curves", "difference_by_round"]) == standard
        assert (len(found) > 1) == standard


def test_failed_cells_are_left_out_and_counted(tmp_path: Path):
    run = load(write_run(tmp_path, seeds=3, failed={("warm_start", 2): "gave_up"}))
    assert draw(run, kind="scatter", x="epochs").caption.endswith("Left out: 1 of 9 cells (1 that gave up).")


def test_the_page_of_an_unfinished_rehearsal_has_them(tmp_path: Path):
    folder = write_run(tmp_path, stream="split", seeds=1, rehearsal=True, leave_out=lambda cell: cell["round"] == 1)
    text = (folder / "scenario.yaml").read_text(encoding="utf-8")
    figures = "figures: [{kind: curves, x: epoch}, {kind: curves, y: nothing}, {kind: scatter, x: epochs}]\n"
    (folder / "scenario.yaml").write_text(f"{text}standard_figures: false\n{figures}", encoding="utf-8")
    page = report.write(folder).read_text(encoding="utf-8")
    assert page.count(f">{REHEARSAL}<") >= 3
    assert "Not drawn: y: unknown column of rounds.csv" in page
    assert sorted(path.name for path in (folder / "figures").glob("*.svg")) == [f"figure_{n}.svg" for n in (1, 2, 3)]
