"""Which figures a run has, and that they draw the numbers of the tables."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_runs import ARMS, write_run

from warmstart_sim.report import style
from warmstart_sim.report.curves import accuracy_by_epoch, learning_curves
from warmstart_sim.report.figures import REHEARSAL, draw_figures
from warmstart_sim.report.style import ReportFigure
from warmstart_sim.results.tables import Run, load

pytestmark = pytest.mark.xdist_group("figures")  # its fixtures are made in one process

CURVES = ["learning_curves", "difference_by_round", "paired_differences", "tradeoff", "train_time", "epochs_per_round"]
SPLIT = ["accuracy_by_epoch", "paired_differences", "tradeoff"]
LAMBDA = {"strategies.shrink_perturb.lambda": [1, 0.6, 0]}


def by_round(cell: dict[str, Any]) -> str:
    return "isolated" if cell["round"] % 2 else "concurrent"


def figures_of(folder: Path, **options: Any) -> dict[str, ReportFigure]:
    return {figure.name: figure for figure in draw_figures(load(write_run(folder, **options)))}


def figure_of(draw: Callable[[Run], ReportFigure | None], folder: Path, **options: Any) -> ReportFigure:
    """One figure of a run, without the others that it has."""
    figure = draw(load(write_run(folder, **options)))
    assert figure is not None
    return figure


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, ReportFigure]]:
    """A run of three arms, five seeds and six rounds, and its figures."""
    folder = tmp_path_factory.mktemp("online")
    found = figures_of(folder)
    return load(folder), found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"seeds": 1}, CURVES),
        ({"seeds": 2, "vary": LAMBDA}, [*CURVES, "along_lambda"]),
        ({"stream": "static", "seeds": 1, "vary": LAMBDA}, [*SPLIT, "along_lambda"]),
        ({"vary": {"data.name": ["cifar10", "svhn"]}}, CURVES),
        ({"stream": "split"}, SPLIT),
        ({"stream": "split", "vary": {"stream.fraction": [0.1, 0.5]}}, [*SPLIT, "along_stream_fraction"]),
        ({"stream": "static"}, SPLIT),
        ({"leave_out": lambda cell: True}, []),
        ({"failed": {(arm, seed): "gave_up" for arm in ARMS for seed in range(3)}}, []),
        ({"stream": "static", "arms": {"warm_start": {"start": "warm_start"}}}, ["accuracy_by_epoch", "tradeoff"]),
        ({"stream": "static", "vary": LAMBDA, "leave_out": lambda cell: "lambda" in cell}, SPLIT),
        ({"timing": by_round}, [name for name in CURVES if name != "tradeoff"]),
        ({"stream": "static", "vary": {"model.batch_norm": [True, False]}}, SPLIT),
    ],
    ids=[
        "one seed", "lambda, two seeds", "lambda, one seed", "data", "split", "fraction", "static", "empty",
        "all failed", "one arm", "lambda to come", "mixed timing", "booleans",
    ],
)  # fmt: skip
def test_a_run_has_the_figures_that_say_something(tmp_path: Path, options: dict[str, Any], expected: list[str]):
    found = figures_of(tmp_path, **{"seeds": 3, **options})
    assert list(found) == expected
    for figure in found.values():
        style.to_svg(figure)  # a warning while it is drawn is an error


def lines(figure: ReportFigure) -> dict[str, Any]:
    """The lines of the first ax, by their colour."""
    return {line.get_color(): line for line in figure.figure.axes[0].lines if len(line.get_xdata()) > 2}


def test_learning_curves_are_means_over_seeds_in_per_cent(online: tuple[Run, dict[str, ReportFigure]]):
    figure, rounds = online[1]["learning_curves"], online[0].rounds
    for strategy, colour in (("random_init", style.INK), ("warm_start", style.PALETTE[0])):
        expected = (
            rounds[rounds["strategy"] == strategy].groupby("round")[["train_samples", "validation_accuracy"]].mean()
        )
        drawn = lines(figure)[colour]
        np.testing.assert_allclose(drawn.get_xdata(), expected["train_samples"])
        np.testing.assert_allclose(drawn.get_ydata(), 100 * expected["validation_accuracy"])
    assert "Mean over 5 seeds; the band is the 95 % confidence interval" in figure.caption


@pytest.mark.parametrize("most", [256, 3000])  # the same samples in all rounds, and a window that is full
def test_rounds_whose_samples_do_not_grow_are_told_apart_by_their_number(
    online: tuple[Run, dict[str, ReportFigure]], most: int
):
    sizes = online[0].rounds["train_samples"].clip(upper=most)
    run = replace(online[0], rounds=online[0].rounds.assign(train_samples=sizes))
    figure = learning_curves(run)
    assert figure is not None
    means = run.rounds[run.rounds["strategy"] == "warm_start"].groupby("round")["validation_accuracy"].mean()
    drawn = lines(figure)[style.PALETTE[0]]
    np.testing.assert_allclose(drawn.get_xdata(), means.index)
    np.testing.assert_allclose(drawn.get_ydata(), 100 * means)
    assert "after each round. " in figure.caption


def test_lines_beyond_the_twelfth_are_said_to_be_left_out(tmp_path: Path):
    vary = {"strategies.shrink_perturb.lambda": [step / 13 for step in range(14)]}
    figure = figure_of(learning_curves, tmp_path, seeds=1, vary=vary)
    labels = [text.get_text() for text in figure.figure.legends[0].get_texts()]
    assert (len(labels), labels[2], labels[-1]) == (2 + 12, "λ = 0", "λ = 1")
    assert "12 of 14 values of λ are drawn, evenly spread." in figure.caption


def test_an_arm_looks_the_same_in_every_figure(online: tuple[Run, dict[str, ReportFigure]]):
    for name in ("learning_curves", "train_time", "epochs_per_round"):
        assert list(lines(online[1][name])) == [style.INK, *style.PALETTE[:2]]


def test_values_of_an_arm_s_own_key_are_lines_in_order_of_a_scale(tmp_path: Path):
    figure = figure_of(learning_curves, tmp_path, vary=LAMBDA)
    labels = [text.get_text() for text in figure.figure.legends[0].get_texts()]
    assert labels == ["random init", "warm start", "λ = 0", "λ = 0.6", "λ = 1"]
    assert "The lines labelled by λ are shrink perturb (σ = 0.1)." in figure.caption
    assert len(figure.figure.axes) == 1


def test_values_of_a_key_of_all_arms_are_panels(tmp_path: Path):
    figure = figure_of(learning_curves, tmp_path, vary={"data.name": ["svhn", "cifar10"]})
    assert [ax.get_title(loc="left") for ax in figure.figure.axes] == ["data = cifar10", "data = svhn"]
    assert figure.figure.axes[0].get_gridspec().ncols == 2


def test_panels_beyond_the_twelfth_are_said_to_be_left_out(tmp_path: Path):
    vary = {"model.width": list(range(1, 15))}
    figure = figure_of(accuracy_by_epoch, tmp_path, seeds=1, stream="static", vary=vary)
    assert len(figure.figure.axes) == 12
    assert "The first 12 of 14 combinations" in figure.caption


def test_a_quantity_without_values_along_the_axis_has_no_figure(tmp_path: Path):
    vary = {"data.name": ["cifar10", "cifar100", "svhn", "mnist", "digits"], **LAMBDA}  # with two numbers: a grid
    only = {"random_init": 0, "warm_start": 0, "shrink_perturb": 1}  # seeds: none of shrink's cells is paired
    unpaired = figures_of(
        tmp_path, stream="static", seeds=2, vary=vary, leave_out=lambda cell: cell["seed"] != only[cell["strategy"]]
    )
    assert [name for name in unpaired if "lambda" in name] == ["along_lambda_accuracy", "along_lambda_train_time"]


def test_first_phase_is_one_line_where_arms_share_it(tmp_path: Path):
    figure = figure_of(accuracy_by_epoch, tmp_path, stream="split")
    labels = [text.get_text() for text in figure.figure.legends[0].get_texts()]
    assert labels == ["first phase (shared)", "random init", "warm start", "shrink perturb (λ = 0.6, σ = 0.1)"]
    grey, random, warm = (lines(figure)[colour] for colour in ("#808080", style.INK, style.PALETTE[0]))
    assert warm.get_xdata()[0] == random.get_xdata()[0] == grey.get_xdata()[-1] + 1
    assert "including random init, starts its next round." in figure.caption


def test_a_first_phase_of_an_arm_s_own_stays_with_the_arm(tmp_path: Path):
    run = load(write_run(tmp_path, stream="split"))
    own = (run.epochs["strategy"] == "warm_start") & run.epochs["shared"]
    run.epochs.loc[own, "running_train_loss"] += 1  # as with an augmentation: trained apart
    figure = accuracy_by_epoch(run)
    assert figure is not None
    assert "#808080" not in lines(figure)
    assert "shared by all arms" not in figure.caption


def test_seeds_that_stopped_stay_at_their_last_value(tmp_path: Path):
    figure = figure_of(accuracy_by_epoch, tmp_path, stream="static")
    epochs = load(tmp_path).epochs
    last = epochs[epochs["strategy"] == "warm_start"].groupby("seed")["validation_accuracy"].last()
    assert lines(figure)[style.PALETTE[0]].get_ydata()[-1] == pytest.approx(100 * last.mean())


def test_times_of_two_kinds_are_never_in_one_figure(tmp_path: Path):
    found = figures_of(tmp_path, timing=lambda cell: "isolated" if cell["seed"] == 0 else "concurrent")
    for name, count in (("train_time", 18), ("tradeoff", 3)):
        assert "timed beside other cells" in found[name].caption
        assert f"{count} " in found[name].caption
        assert "otherwise are left out" in found[name].caption
    ax = found["train_time"].figure.axes[0]
    assert "timed beside other cells" in ax.get_ylabel()


def drawn_times(found: dict[str, ReportFigure]) -> dict[str, np.ndarray]:
    """Warm start's times as drawn, in seconds: the mean of each round, and each seed's sum, in order."""
    colour = style.PALETTE[0]
    points = [line for line in found["tradeoff"].figure.axes[0].lines if line.get_color() == colour]
    return {
        "by round": np.asarray(lines(found["train_time"])[colour].get_ydata()),
        "in all": np.sort(next(line.get_xdata() for line in points if line.get_alpha() is not None)),
    }


@pytest.mark.parametrize("kind", ["isolated", "estimated", "concurrent"])
def test_times_are_drawn_and_named_by_their_kind(tmp_path: Path, kind: str):
    measured = "isolated" if kind == "isolated" else "concurrent"
    found = figures_of(tmp_path, timing=lambda cell: measured, estimated=lambda cell: kind == "estimated")
    rounds = pd.read_csv(tmp_path / "rounds.csv").query("strategy == 'warm_start'")
    column = "estimated_isolated_seconds" if kind == "estimated" else "train_seconds"
    drawn = drawn_times(found)
    np.testing.assert_allclose(drawn["by round"], rounds.groupby("round")[column].mean())
    np.testing.assert_allclose(drawn["in all"], np.sort(rounds.groupby("seed")[column].sum()))
    label, words = {
        "isolated": ("timed alone on the device", "timed alone on the device."),
        "estimated": ("estimated from step time", "estimated from the step time measured on the idle device."),
        "concurrent": ("timed beside other cells", "timed beside other cells."),
    }[kind]
    assert found["train_time"].figure.axes[0].get_ylabel() == f"train time per round (s)\n{label}"
    assert found["tradeoff"].figure.axes[0].get_xlabel() == f"train time of all rounds (s)\n{label}"
    for name in ("train_time", "tradeoff"):
        assert words in found[name].caption
        assert "left out" not in found[name].caption


def test_estimates_are_not_drawn_beside_measured_times(tmp_path: Path):
    found = figures_of(tmp_path, estimated=lambda cell: cell["seed"] > 1)  # seeds 2, 3 and 4
    rounds = pd.read_csv(tmp_path / "rounds.csv").query("strategy == 'warm_start' and seed > 1")
    drawn = drawn_times(found)
    np.testing.assert_allclose(drawn["by round"], rounds.groupby("round")["estimated_isolated_seconds"].mean())
    np.testing.assert_allclose(drawn["in all"], np.sort(rounds.groupby("seed")["estimated_isolated_seconds"].sum()))
    assert "Mean over 3 seeds" in found["train_time"].caption
    assert "36 rounds that were timed otherwise are left out." in found["train_time"].caption
    assert "6 cells that were timed otherwise are left out." in found["tradeoff"].caption


def test_times_along_a_number_are_named_by_their_kind(tmp_path: Path):
    vary = {"stream.fraction": [0.1, 0.5]}
    figure = figures_of(tmp_path, stream="split", vary=vary, estimated=lambda cell: True)["along_stream_fraction"]
    assert figure.figure.axes[2].get_ylabel() == "train time (s)\nestimated from step time"
    assert (
        "rain time after the first phase (estimated from the step time measured on the idle device)" in figure.caption
    )
    own = pd.read_csv(tmp_path / "rounds.csv").query("round == 1 and strategy == 'warm_start'")
    (bars,) = (bars for bars in figure.figure.axes[2].containers if bars[0].get_color() == style.PALETTE[0])
    means = own.groupby("stream_fraction")["estimated_isolated_seconds"].mean()
    np.testing.assert_allclose(bars[0].get_ydata(orig=False), means)


def test_failed_cells_are_left_out_and_counted_in_every_caption(tmp_path: Path):
    found = figures_of(tmp_path, failed={("warm_start", 3): "diverged", ("shrink_perturb", 1): "gave_up"})
    for figure in found.values():
        assert "Left out: 2 of 15 cells (1 that diverged and 1 that gave up)." in figure.caption
    drawn = lines(found["learning_curves"])[style.PALETTE[0]].get_ydata()
    rounds = load(tmp_path).rounds
    sound = rounds[(rounds["strategy"] == "warm_start") & (rounds["seed"] != 3)]
    np.testing.assert_allclose(drawn, 100 * sound.groupby("round")["validation_accuracy"].mean())


@pytest.mark.parametrize("rehearsal", [True, False])
def test_a_rehearsal_is_marked_in_every_figure(tmp_path: Path, rehearsal: bool):
    for figure in figures_of(tmp_path, stream="split", seeds=2, rehearsal=rehearsal).values():
        assert (REHEARSAL in style.to_svg(figure)) == rehearsal


def test_svg_text_is_text_and_small(online: tuple[Run, dict[str, ReportFigure]]):
    assert list(online[1]) == CURVES
    for figure in online[1].values():
        text = style.to_svg(figure)
        assert len(text) < 40_000
        assert "random init" in text


def test_labels_of_users_are_taken_literally(tmp_path: Path):
    arms = {**ARMS, "_50 $ & <b>": {"start": "warm_start"}, "シ": {"start": "warm_start"}}
    for figure in figures_of(tmp_path, stream="split", seeds=1, arms=arms).values():
        assert "50 $ &amp; &lt;b&gt;" in style.to_svg(figure)
        assert style.to_png(figure).startswith(b"\x89PNG")  # without a warning about letters that the font lacks


def test_inline_figures_have_ids_of_their_own_and_colours_of_the_page(tmp_path: Path):
    parts = [
        style.inline_svg(style.to_svg(figure), name, "x")
        for name, figure in figures_of(tmp_path, stream="split").items()
    ]
    ids = [found for part in parts for found in re.findall(r'\bid="([^"]+)"', part)]
    assert len(ids) == len(set(ids))
    used = {
        found for part in parts for found in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', part) for found in found
    }
    assert used - {""} <= set(ids)
    assert not re.search(r"(fill|stroke): #", "".join(parts))


def test_the_user_s_matplotlib_settings_stay(tmp_path: Path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    for figure in figures_of(tmp_path, stream="static", seeds=1).values():
        style.to_svg(figure)
    assert dict(matplotlib.rcParams) == before
