"""What a reader of the figures relies on: things are told apart, labelled, on scales of their own, and explained."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from fake_runs import ARMS, write_run
from made_grids import with_failures, write_grid
from matplotlib.axes import Axes
from matplotlib.collections import FillBetweenPolyCollection
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D
from matplotlib.text import Text

from warmstart_sim import report
from warmstart_sim.report import style
from warmstart_sim.report.curves import difference_by_round, epochs_per_round, learning_curves, train_time
from warmstart_sim.report.figures import draw_figures
from warmstart_sim.report.grids import grids_of
from warmstart_sim.report.heatmaps import heatmaps
from warmstart_sim.report.panels import arm_styles, bar_ends
from warmstart_sim.report.style import ReportFigure
from warmstart_sim.results.statistics import over_seeds
from warmstart_sim.results.tables import load

pytestmark = pytest.mark.xdist_group("pictures")  # its fixtures are made in one process

Figures = dict[str, ReportFigure]


def figures_in(folder: Path, **changes: Any) -> Figures:
    return {figure.name: figure for figure in draw_figures(replace(load(folder), **changes))}


def heatmaps_in(folder: Path) -> Figures:
    run = load(folder)
    return {figure.name: figure for grid in grids_of(run) for figure in heatmaps(run, grid)}


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Figures]:
    folder = write_grid(
        tmp_path_factory.mktemp("grid"),
        tweak=lambda table: table.assign(flops=1e12 * (10 - 5 * table["lambda"].fillna(0))),
    )
    return folder, figures_in(folder)


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Figures]:
    folder = write_grid(tmp_path_factory.mktemp("failing"), tweak=with_failures)
    return folder, figures_in(folder)


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Figures]:
    folder = write_run(tmp_path_factory.mktemp("online"))
    return folder, figures_in(folder)


def titles(figure: ReportFigure) -> list[str]:
    """The hover texts of a figure's SVG."""
    return titles_in(style.to_svg(figure))


def titles_in(file: str) -> list[str]:
    svg = ElementTree.fromstring(file)
    assert not [each for each in svg.iter() if each.tag.endswith("}a")]  # no link is left
    return [str(each.text) for each in svg.iter() if each.tag.endswith("}title")]


def means_over_seeds(folder: Path, column: str) -> pd.Series:
    """The sum of a column over rounds, mean over seeds, by (lambda, sigma)."""
    rounds = pd.read_csv(folder / "rounds.csv").dropna(subset="lambda")
    return rounds.groupby(["lambda", "sigma", "seed"])[column].sum().groupby(["lambda", "sigma"]).mean()


def color_bar(figure: ReportFigure) -> Axes:
    return next(ax for ax in figure.figure.axes if ax.get_label() == "<colorbar>")


def front_line(ax: Axes) -> Line2D:
    return next(line for line in ax.lines if line.get_drawstyle() == "steps-post")


def test_no_two_of_many_arms_share_colour_and_marker(tmp_path: Path):
    arms = {"random_init": ARMS["random_init"]} | {f"arm_{index}": {"start": "warm_start"} for index in range(30)}
    styles = arm_styles(load(write_run(tmp_path, stream="static", seeds=1, arms=arms)))
    assert len(styles) == 31
    assert len({(each.color, each.marker) for each in styles.values()}) == 31
    assert len({each.marker for each in list(styles.values())[:11]}) >= 10


@pytest.mark.parametrize("name", ["pareto", "pareto_flops"])
def test_the_front_is_drawn_in_steps_with_labels_that_cover_nothing(grid: tuple[Path, Figures], name: str):
    figure = grid[1][name].figure
    (ax,) = figure.axes
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in ax.texts]  # without the line to the point
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    points = np.concatenate([ax.transData.transform(line.get_xydata()) for line in ax.lines if len(line.get_xdata())])
    assert not [point for point in points for box in boxes if box.contains(*point)]
    assert all(ax.bbox.contains(*corner) for box in boxes for corner in box.corners())
    on_front = front_line(ax).get_xydata()
    assert 3 <= len(ax.texts) <= len(on_front)
    accuracy = pd.read_csv(grid[0] / "rounds.csv").query("round == 2").groupby(["lambda", "sigma"])["test_accuracy"]
    for text in ax.texts:
        expected = 100 * accuracy.mean()[tuple(map(float, text.get_text().strip("()").split(",")))]
        assert np.isclose(text.xy[1], expected)
        assert np.isclose(on_front[:, 1], expected).any()
    assert "Labels: (λ, σ), where there is room." in grid[1][name].caption


def test_a_setting_with_a_failed_seed_is_hollow_and_never_on_the_front(tmp_path: Path):
    def best_but_failed(table: pd.DataFrame) -> pd.DataFrame:
        here = (table["lambda"] == 0.4) & (table["sigma"] == 0)
        lost = here & (table["seed"] == 1) & (table["round"] == 2)
        table = table.assign(test_accuracy=table["test_accuracy"].mask(here, 0.99))
        return table.assign(status=table["status"].mask(lost, "gave_up"))

    figure = figures_in(write_grid(tmp_path, tweak=best_but_failed))["pareto"]
    (ax,) = figure.figure.axes
    hollow = [line for line in ax.lines if line.get_marker() == "D" and line.get_markerfacecolor() == "none"]
    assert [each for line in hollow for each in line.get_ydata()] == pytest.approx([99])
    assert front_line(ax).get_ydata().max() < 90
    assert "Hollow, and never on the front" in figure.caption


def test_failed_cells_do_not_stretch_the_curves_of_a_grid(failing: tuple[Path, Figures]):
    figure = failing[1]["grid_curves"]
    sound = [line for ax in figure.figure.axes for line in ax.lines if line.get_marker() != "x"]
    values = np.concatenate([line.get_ydata() for line in sound])
    for ax in figure.figure.axes:
        bottom, top = ax.get_ylim()
        assert bottom < values.min() and values.max() < top  # noqa: PT018
        assert top - bottom < 1.3 * (values.max() - values.min())
    failed_low = (pd.read_csv(failing[0] / "rounds.csv")["test_accuracy"] == 0.1).sum() // 2  # two rounds each
    assert f"Partly outside: {failed_low} curves of failed cells or of outliers, down to 10.0 %." in figure.caption


def test_without_failures_nothing_lies_outside_the_curves(grid: tuple[Path, Figures]):
    assert "outside" not in grid[1]["grid_curves"].caption


def test_bars_of_several_lines_at_one_value_stand_side_by_side(tmp_path: Path):
    write_run(tmp_path, stream="split", vary={"stream.fraction": [0.1, 0.5, 1.0]})
    figure = figures_in(tmp_path)["along_stream_fraction"].figure
    figure.draw_without_rendering()
    for ax in figure.axes:
        bars = [each for each in ax.containers if isinstance(each, ErrorbarContainer)]
        places = np.array([each[0].get_transform().transform(each[0].get_xydata())[:, 0] for each in bars])
        of_bars = np.array([each[2][0].get_transform().transform(each[2][0].get_segments()[0])[0, 0] for each in bars])
        np.testing.assert_allclose(places[:, 0], of_bars)  # a bar is at its point
        assert (np.abs(np.diff(places, axis=0)) >= 4).all()
        assert np.ptp(places, axis=0).max() <= 25
        assert {tuple(each[0].get_xdata()) for each in bars} == {(0.1, 0.5, 1.0)}


@pytest.mark.parametrize("name", ["heatmap_time", "heatmap_epochs", "heatmap_flops"])
def test_costs_have_a_logarithmic_scale_and_colours_of_their_own(grid: tuple[Path, Figures], name: str):
    assert color_bar(grid[1][name]).get_yscale() == "log"
    colours = {to_hex(patch.get_facecolor()) for patch in grid[1][name].figure.axes[0].patches}
    assert colours & set(style.COST)
    assert not colours & {*style.SEQUENTIAL, *style.DIVERGING}
    assert color_bar(grid[1]["heatmap_accuracy"]).get_yscale() == "linear"


def test_epochs_and_flops_are_those_of_the_table(tmp_path: Path):
    def varied(table: pd.DataFrame) -> pd.DataFrame:
        work = (10 + 100 * table["lambda"].fillna(1) + 7 * table["round"] + table["seed"]).round()
        return table.assign(epochs=work, flops=1e12 * work)

    found = figures_in(write_grid(tmp_path, tweak=varied))
    for column, scale, words in (("epochs", 1, "epochs"), ("flops", 1e12, "TFLOP")):
        wanted = means_over_seeds(tmp_path, column) / scale
        said = {title.rsplit(": ", 1)[0]: title.rsplit(": ", 1)[1] for title in titles(found[f"heatmap_{column}"])}
        assert len(said) == 36
        for (lam, sigma), value in wanted.items():
            number, unit = said[f"λ = {lam:g}, σ = {sigma:g}".replace("e-0", "e-")].split()
            assert float(number) == pytest.approx(value, rel=0.006)
            assert unit == words
    assert "pareto_flops" in found
    assert "pareto_epochs" not in found


def test_without_flops_epochs_are_the_second_cost(tmp_path: Path):
    found = figures_in(write_grid(tmp_path, tweak=lambda table: table.assign(flops=np.nan)))
    assert [name for name in found if "pareto" in name] == ["pareto", "pareto_epochs"]
    assert "heatmap_flops" not in found


@pytest.mark.parametrize("seeds", [2, 3])
def test_differences_by_round_are_paired_by_seed(tmp_path: Path, seeds: int):
    figure = difference_by_round(load(write_run(tmp_path, seeds=seeds)))
    (ax,) = figure.figure.axes
    table = pd.read_csv(tmp_path / "rounds.csv").pivot(
        index=["round", "seed"], columns="strategy", values="validation_accuracy"
    )
    gap = 100 * (table["warm_start"] - table["random_init"]).unstack("seed")
    line = next(each for each in ax.lines if each.get_color() == style.PALETTE[0] and each.get_linewidth() == 2)
    np.testing.assert_allclose(line.get_ydata(), gap.mean(axis=1))
    assert [each for each in ax.lines if list(each.get_ydata()) == [0, 0]]
    bands = [each for each in ax.collections if isinstance(each, FillBetweenPolyCollection)]
    assert len(bands) == (2 if seeds == 3 else 0)


def test_points_and_cells_have_hover_texts(online: tuple[Path, Figures], failing: tuple[Path, Figures]):
    found: dict[str, list[str]] = {}
    for name, figure in (*online[1].items(), *failing[1].items()):
        svg = style.to_svg(figure)
        found[name] = titles_in(svg)
        hovers = re.findall(r"<path [^>]*><title>[^<]*</title></path>", svg)
        assert len(hovers) == len(found[name])
        assert sum(map(len, hovers)) < 260 * len(hovers)
    rounds = pd.read_csv(online[0] / "rounds.csv").query("strategy == 'warm_start'")
    first = 100 * rounds.query("round == 0")["validation_accuracy"].mean()
    of_curves = found["learning_curves"]
    assert len(of_curves) == 3 * 6
    assert [each for each in of_curves if each.startswith(f"warm start, 1,000 samples: {first:.4g} ± ")]
    assert len(found["tradeoff"]) == 3
    assert len(found["paired_differences"]) == 2
    assert "λ = 0.4, σ = 0.001: diverged" in found["heatmap_accuracy"]
    assert "λ = 0.8, σ = 0.1: not run yet" in found["heatmap_time"]
    assert len(found["pareto"]) == 26


def test_cells_of_a_large_grid_have_no_hover_texts(tmp_path: Path):
    values = [round(0.05 * step, 3) for step in range(21)]
    found = heatmaps_in(write_grid(tmp_path, lambdas=values, sigmas=values, seeds=1))
    assert titles(found["heatmap_accuracy"]) == []


@pytest.mark.parametrize("shape", ["online", "split", "grid"])
def test_intervals_of_two_seeds_are_drawn_nowhere(tmp_path: Path, shape: str):
    if shape == "grid":
        write_grid(tmp_path, seeds=2, lambdas=[0, 1], sigmas=[0, 1])
    else:
        write_run(tmp_path, stream=shape, seeds=2, vary={"stream.fraction": [0.1, 1.0]})
    found = figures_in(tmp_path)
    assert ({"pareto"} if shape == "grid" else {"paired_differences", "tradeoff", "along_stream_fraction"}) <= set(
        found
    )
    for ax in [ax for figure in found.values() for ax in figure.figure.axes]:
        assert not [each for each in ax.collections if isinstance(each, FillBetweenPolyCollection)]
        for bars in [bars for each in ax.containers if isinstance(each, ErrorbarContainer) for bars in each[2]]:
            assert not [segment for segment in bars.get_segments() if len(segment) and np.isfinite(segment).all()]
        assert not [text for text in ax.texts if "[" in text.get_text()]
    assert "±" not in "".join(title for figure in found.values() for title in titles(figure))


@pytest.mark.parametrize("name", ["heatmap_accuracy", "heatmap_time", "heatmap_flops"])
def test_heatmaps_show_the_value_of_random_init(grid: tuple[Path, Figures], name: str):
    rounds = pd.read_csv(grid[0] / "rounds.csv").query("strategy == 'random_init'")
    value = {
        "heatmap_accuracy": 100 * rounds.query("round == 2")["test_accuracy"].mean(),
        "heatmap_time": rounds.groupby("seed")["train_seconds"].sum().mean(),
        "heatmap_flops": 30.0,
    }[name]
    figure = grid[1][name]
    (mark,) = (line for line in color_bar(figure).lines if line.get_marker() == "D")
    assert mark.get_ydata()[0] == pytest.approx(value, rel=0.2 if name == "heatmap_time" else 0.02)
    (label,) = (text.get_text() for text in figure.figure.legends[0].get_texts() if ": " in text.get_text())
    assert float(label.removeprefix("random init: ")) == pytest.approx(value, rel=0.01)


def test_each_panel_of_a_heatmap_names_its_own_random_init(tmp_path: Path):
    figure = heatmaps_in(write_grid(tmp_path, seeds=1, more={"training.optimizer.lr": [0.1, 0.01]}))["heatmap_accuracy"]
    last = pd.read_csv(tmp_path / "rounds.csv").query("strategy == 'random_init' and round == 2")
    wanted = 100 * last.set_index("training_optimizer_lr")["test_accuracy"].sort_index()
    panels = figure.figure.axes[:2]
    assert [ax.get_title(loc="left").rsplit(": ")[1] for ax in panels] == [f"{each:.1f}" for each in wanted]
    assert len(color_bar(figure).lines) >= 2


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (142, " At 1,000 and 2,000 samples the last batch of each epoch has only 6 to 12 samples:"),
        (999, " At 2,000, 3,000, 4,000 and 5,000 samples, and elsewhere, the last batch of each epoch has only 2 to 6"),
        (30, ""),
        (500, ""),
    ],
)  # fmt: skip
def test_small_last_batches_are_named_where_they_show(tmp_path: Path, batch: int, words: str):
    write_run(tmp_path, seeds=2)
    path = tmp_path / "scenario.yaml"
    scenario = yaml.safe_load(path.read_text(encoding="utf-8")) | {"training": {"batch_size": batch}}
    path.write_text(yaml.safe_dump(scenario), encoding="utf-8")
    run = load(tmp_path)
    for draw in (learning_curves, train_time, epochs_per_round):
        caption = draw(run).caption
        assert words in caption
        assert ("last batch" in caption) == bool(words)


def test_bands_are_confidence_intervals_or_standard_deviations(online: tuple[Path, Figures]):
    rounds = pd.read_csv(online[0] / "rounds.csv").query("strategy == 'warm_start' and round == 3")
    accuracy = 100 * rounds["validation_accuracy"]
    half = {"ci": 2.776 * accuracy.std() / 5**0.5, "std": accuracy.std()}  # t of four degrees of freedom
    for bands, found in (("ci", online[1]), ("std", figures_in(online[0], bands="std"))):
        ax = found["learning_curves"].figure.axes[0]
        band = [each for each in ax.collections if isinstance(each, FillBetweenPolyCollection)][1]
        at = band.get_paths()[0].vertices
        ends = at[np.isclose(at[:, 0], 4000), 1]
        assert np.ptp(ends) / 2 == pytest.approx(half[bands], rel=1e-3)
        for name in ("learning_curves", "paired_differences", "tradeoff", "difference_by_round"):
            said = "95 % confidence interval of the mean (Ash & Adams show standard deviations)"
            assert (said in found[name].caption) == (bands == "ci")
            assert ("one standard deviation over seeds to each side, as in" in found[name].caption) == (bands == "std")


def test_the_report_is_written_with_the_bands_asked_for(tmp_path: Path):
    write_run(tmp_path, stream="static", seeds=3)
    assert "one standard deviation over seeds" in report.write(tmp_path, bands="std").read_text(encoding="utf-8")
    assert "one standard deviation over seeds" not in report.write(tmp_path).read_text(encoding="utf-8")


@pytest.mark.parametrize("bands", ["ci", "std"])
def test_intervals_of_seconds_stay_above_zero_and_hold_the_mean(tmp_path: Path, bands: str):
    run = replace(load(write_run(tmp_path, seeds=3)), bands=bands)
    table = over_seeds(pd.DataFrame({"arm": "a", "compared_seconds": [0.1, 5.0, 60.0]}), ["arm"], "compared_seconds")
    mean = table["mean"][0]
    low, high = (end[0] for end in bar_ends(run, table, "compared_seconds"))
    if bands == "ci":
        half = table["high"][0] - mean
        assert half > mean  # a plain interval would reach below zero
        assert 0 < low < mean < high
        assert (low, high) == pytest.approx((mean * np.exp(-half / mean), mean * np.exp(half / mean)))
    else:
        assert high - mean == pytest.approx(mean - low) == pytest.approx(np.std([0.1, 5, 60], ddof=1))
