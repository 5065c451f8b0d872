"""Pre-training on another data set in the report: a panel a pair, a line an arm, the numbers of the tables."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_runs import ARMS, FRACTIONS, PAIRS, write_run
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from rich.console import Console

from warmstart_sim.report import html, style
from warmstart_sim.report.axis_plots import plot_against_axis
from warmstart_sim.report.comparisons import tradeoff
from warmstart_sim.report.curves import accuracy_by_epoch
from warmstart_sim.report.figures import draw_figures
from warmstart_sim.report.findings import describe_run, missing_or_failed
from warmstart_sim.report.layout import wrap_title
from warmstart_sim.report.style import ReportFigure
from warmstart_sim.report.terminal import terminal_table
from warmstart_sim.results.tables import load

pytestmark = pytest.mark.xdist_group("pretraining_report")  # its fixtures are made in one process

COLORS = dict(zip(ARMS, (style.INK, *style.PALETTE), strict=False))  # colours, in the order of the arms
ONE = {"random_init": {"start": "random_init"}}
LAMBDAS = [0.0, 0.5, 1.0]
OVER_P = {"stream.fraction": FRACTIONS}
ALONG = "along_stream_fraction"


def some_pairs(count: int) -> dict[str, Any]:
    return {label: PAIRS[label] for label in list(PAIRS)[:count]}


def figures_of(folder: Path, **options: Any) -> dict[str, ReportFigure]:
    """The figures of a made-up run with three seeds."""
    run = load(write_run(folder, **{"stream": "pretrain", "seeds": 3, **options}))
    return {figure.name: figure for figure in draw_figures(run)}


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, ReportFigure]]:
    """The folder and the figures of a run of six pairs, four fractions, three arms and three seeds."""
    folder = tmp_path_factory.mktemp("six")
    return folder, figures_of(folder, vary={"pair": PAIRS, **OVER_P})


def along_fraction(folder: Path, **options: Any) -> dict[str, ReportFigure]:
    """The figures against the fraction of a made-up run with three seeds."""
    run = load(write_run(folder, **{"stream": "pretrain", "seeds": 3, **options}))
    return {figure.name: figure for figure in plot_against_axis(run, "stream_fraction")}


def page_of(folder: Path, **options: Any) -> str:
    """The page of a made-up run, without its figures."""
    run = load(write_run(folder, **{"stream": "pretrain", "seeds": 2, **options}))
    return html.render_page(run, run.summary(), [], {})


def expected(folder: Path) -> dict[str, pd.DataFrame]:
    """Means over seeds by pair, arm and fraction, straight from the file."""
    rounds = pd.read_csv(folder / "rounds.csv").query("round == 1")
    keys = ["pair", "strategy", "stream_fraction"]
    wide = rounds.pivot_table(
        index=["pair", "stream_fraction", "seed"], columns="strategy", values="validation_accuracy"
    )
    gaps = wide.sub(wide["random_init"], axis=0).groupby(level=["pair", "stream_fraction"]).mean()
    return {
        "accuracy": 100 * rounds.groupby(keys)["validation_accuracy"].mean(),
        "difference": 100 * gaps.stack().reorder_levels([0, 2, 1]).sort_index(),
        "train_time": rounds.groupby(keys)["train_seconds"].mean(),
    }  # fmt: skip


def drawn(ax: Axes) -> dict[str, Any]:
    """(x, y) of each line of a ax, by its colour."""
    return {to_hex(bars[0].get_color()): bars[0].get_data(orig=False) for bars in ax.containers}


def axs_of(found: dict[str, ReportFigure], pairs: int) -> dict[str, list[Axes]]:
    """The axs of each quantity, pair by pair, by where they have to stand."""
    if pairs > 4:
        return {name: found[f"{ALONG}_{name}"].figure.axes for name in ("accuracy", "difference", "train_time")}
    axs = np.array(found[ALONG].figure.axes)
    by_quantity = axs.reshape(pairs, 3).T if pairs <= 2 else axs.reshape(3, pairs)
    return dict(zip(("accuracy", "difference", "train_time"), by_quantity.tolist(), strict=True))


def check_means(folder: Path, all_figures: dict[str, ReportFigure], labels: list[str]) -> None:
    """All pairs are drawn, each under its name, and each line goes through the means of the file."""
    found = axs_of(all_figures, len(labels))
    assert [ax.get_title(loc="left") for ax in found["accuracy"]] == labels
    means = expected(folder)
    for quantity, axs in found.items():
        arms = [arm for arm in ARMS if (quantity, arm) != ("difference", "random_init")]
        for label, ax in zip(labels, axs, strict=True):
            lines = drawn(ax)
            assert set(lines) == {COLORS[arm] for arm in arms}
            for arm in arms:
                x, y = lines[COLORS[arm]]
                np.testing.assert_allclose(x, FRACTIONS)
                np.testing.assert_allclose(y, means[quantity][label, arm].loc[FRACTIONS])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_pairs_are_drawn_in_one_figure_with_the_means_of_the_table(tmp_path: Path, count: int):
    pairs = some_pairs(count)
    check_means(tmp_path, along_fraction(tmp_path, vary={"pair": pairs, **OVER_P}), list(pairs))


def test_six_pairs_are_drawn_in_a_figure_for_each_quantity_with_the_means_of_the_table(
    six: tuple[Path, dict[str, ReportFigure]],
):
    check_means(*six, list(PAIRS))


def test_each_lambda_is_a_line_with_its_means(tmp_path: Path):
    vary = {"pair": some_pairs(5), "stream.fraction": [0.1, 1.0], "strategies.shrink_perturb.lambda": LAMBDAS}
    figure = along_fraction(tmp_path, seeds=2, vary=vary)[f"{ALONG}_accuracy"]
    labels = [text.get_text() for text in figure.figure.legends[0].get_texts()]
    assert labels == ["random init", "warm start", "λ = 0", "λ = 0.5", "λ = 1"]
    assert "The lines labelled by λ are shrink perturb (σ = 0.1)." in figure.caption
    rounds = pd.read_csv(tmp_path / "rounds.csv").query("round == 1 and strategy == 'shrink_perturb'")
    means = rounds.groupby(["pair", "lambda", "stream_fraction"])["validation_accuracy"].mean()
    for label, ax in zip(some_pairs(5), figure.figure.axes, strict=True):
        for lam, colour in zip(LAMBDAS, style.sequential_colors(len(LAMBDAS)), strict=True):
            np.testing.assert_allclose(drawn(ax)[colour][1], 100 * means[label, lam])


@pytest.mark.parametrize(
    ("vary", "names"),
    [
        (OVER_P, [ALONG, "accuracy_by_epoch", "paired_differences", "tradeoff"]),
        ({"pair": some_pairs(2), **OVER_P}, [ALONG, "accuracy_by_epoch"]),
        ({"pair": PAIRS}, ["accuracy_by_epoch", "paired_differences", "tradeoff"]),
    ],
    ids=["fractions", "two pairs", "pairs alone"],
)
def test_a_run_has_the_figures_that_can_be_read(tmp_path: Path, vary: dict[str, Any], names: list[str]):
    found = figures_of(tmp_path, vary=vary)
    assert list(found) == names
    for figure in found.values():
        style.to_svg(figure)  # a warning while it is drawn is an error


def test_of_six_pairs_the_course_along_the_fraction_comes_first(six: tuple[Path, dict[str, ReportFigure]]):
    names = [f"{ALONG}_accuracy", f"{ALONG}_difference", f"{ALONG}_train_time", "accuracy_by_epoch"]
    assert list(six[1]) == names
    assert "The first 12 of 24 combinations of varied values are drawn." in six[1]["accuracy_by_epoch"].caption
    for figure in six[1].values():
        style.to_svg(figure)


def test_the_axis_is_the_fraction_of_the_target_with_ticks_at_its_values(tmp_path: Path):
    ax = along_fraction(tmp_path, vary=OVER_P)[ALONG].figure.axes[0]
    assert ax.get_xlabel() == "fraction p of the target data"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.1", "0.3", "0.6", "1"]
    split = along_fraction(tmp_path / "split", stream="split", vary={"stream.fraction": [0.1, 0.5]})[ALONG]
    assert split.figure.axes[0].get_xlabel() == "first fraction"


def test_ticks_that_would_run_into_each_other_are_turned(tmp_path: Path):
    sigmas = [1e-05, 1e-04, 1e-03, 1e-02, 1e-01, 1.0]
    figure = figures_of(tmp_path, seeds=1, vary={"strategies.shrink_perturb.sigma": sigmas})["along_sigma"]
    ticks = figure.figure.axes[0].get_xticklabels()
    assert [tick.get_text() for tick in ticks] == ["1e-5", "0.0001", "0.001", "0.01", "0.1", "1"]
    assert {tick.get_rotation() for tick in ticks} == {45.0}


def test_panels_share_a_scale_only_where_the_target_is_the_same(
    tmp_path: Path, six: tuple[Path, dict[str, ReportFigure]]
):
    same = along_fraction(tmp_path / "same", vary={"pair": some_pairs(2), **OVER_P})[ALONG]
    axs = same.figure.axes
    assert axs[0].get_ylim() == axs[3].get_ylim()
    assert "its own scale" not in same.caption
    for name in ("accuracy", "train_time"):
        other = six[1][f"{ALONG}_{name}"]
        assert len({ax.get_ylim() for ax in other.figure.axes}) == 6
        assert "Each panel has its own scale, because the data differ." in other.caption
    axs = tradeoff(load(write_run(tmp_path / "pairs", stream="pretrain", seeds=3, vary={"pair": PAIRS}))).figure.axes
    heights = [np.ptp(ax.get_ylim()) for ax in axs]
    assert max(heights) < 25  # per cent of accuracy: nothing is squeezed beside CIFAR-100's 30 and SVHN's 93


def test_own_files_of_one_kind_are_different_data(tmp_path: Path):
    pairs = {f"{one} to b": {"stream.source.path": one, "data.path": f"{one}.npz"} for one in ("a", "c")}
    assert "its own scale" in along_fraction(tmp_path, seeds=1, vary={"pair": pairs, **OVER_P})[ALONG].caption


@pytest.mark.parametrize("count", [12, 13])
def test_twelve_pairs_are_the_most_and_it_is_said(tmp_path: Path, count: int):
    pairs = {f"pair {index}": {"data.name": "cifar10"} for index in range(count)}
    vary = {"pair": pairs, "stream.fraction": [0.5, 1.0]}
    figure = along_fraction(tmp_path, seeds=1, arms=ONE, vary=vary)[f"{ALONG}_accuracy"]
    assert [ax.get_title(loc="left") for ax in figure.figure.axes] == list(pairs)[:12]  # not pair 0, 1, 10, 11
    assert ("The first 12 of 13 combinations" in figure.caption) == (count == 13)


def test_the_first_phase_is_not_in_the_accuracy_by_epoch(tmp_path: Path):
    figure = accuracy_by_epoch(load(write_run(tmp_path, stream="pretrain", seeds=3, vary={"pair": some_pairs(1)})))
    (ax,) = figure.figure.axes
    assert ax.get_title(loc="left") == "CIFAR-100 to CIFAR-10"
    assert [text.get_text() for text in figure.figure.legends[0].get_texts()][:2] == ["random init", "warm start"]
    epochs = pd.read_csv(tmp_path / "epochs.csv").query("round == 1 and strategy == 'warm_start' and epoch == 1")
    warm = next(line for line in ax.lines if line.get_color() == COLORS["warm_start"])
    assert (warm.get_xdata()[0], warm.get_ydata()[0]) == (1, pytest.approx(100 * epochs["validation_accuracy"].mean()))
    assert not [line for line in ax.lines if line.get_linestyle() == "--"]  # no border between rounds
    assert "The first phase, on other data, is not drawn." in figure.caption
    assert "dashed" not in figure.caption


def test_a_checkpoint_in_its_place_leaves_nothing_to_tell(tmp_path: Path):
    vary = {"pair": some_pairs(2), **OVER_P}
    found = figures_of(tmp_path, vary=vary, checkpoint=True)
    assert "first phase" not in " ".join(figure.caption for figure in found.values())
    assert "train time of all rounds" in found[ALONG].caption
    check_means(tmp_path, found, list(some_pairs(2)))
    run = load(tmp_path)
    text = html.render_page(
        run, run.summary(), list(found.values()), {name: style.to_svg(found[name]) for name in found}
    )
    assert "first phase" not in text
    assert "data set</th>" not in text


def test_time_says_that_the_first_phase_is_not_in_it(tmp_path: Path, six: tuple[Path, dict[str, ReportFigure]]):
    caption = six[1][f"{ALONG}_train_time"].caption
    assert caption.startswith("Train time after the first phase (timed beside other cells) against fraction p")
    figure = tradeoff(load(write_run(tmp_path, stream="pretrain", seeds=1, vary={"pair": some_pairs(1)})))
    assert figure.figure.axes[0].get_xlabel().startswith("train time after the first phase")


def test_rounds_name_their_data_set(tmp_path: Path):
    table = html.rounds_table(load(write_run(tmp_path, stream="pretrain", vary={"pair": some_pairs(2), **OVER_P})))
    assert table.head[:5] == ["strategy", "pair", "target fraction", "data set", "round"]
    found = {(row[1], row[4]): row[3] for row in table.rows}
    assert found == {
        ("CIFAR-100 to CIFAR-10", "0"): "cifar100",
        ("CIFAR-100 to CIFAR-10", "1"): "cifar10",
        ("SVHN to CIFAR-10", "0"): "svhn",
        ("SVHN to CIFAR-10", "1"): "cifar10",
    }
    assert [row[4] for row in table.rows] == ["0", "1"] * (len(table.rows) // 2)  # in order, whatever the names


def test_the_page_tells_what_the_first_phase_is(tmp_path: Path):
    text = page_of(tmp_path, vary=OVER_P)
    assert (
        "The first phase is the training on the source data, once for each seed and source; all arms share it." in text
    )
    assert "Accuracies are on the data set that the round trains on." in text
    assert "first phase</th>" in text
    assert "target fraction</th>" in text


def test_notes_are_a_short_list_and_escaped(tmp_path: Path):
    text = page_of(tmp_path, seeds=1, arms=ONE, notes=["imdb: 3 <b>texts</b> came out empty"])
    assert "<h2>Notes on the data</h2>" in text
    assert "<li>imdb: 3 &lt;b&gt;texts&lt;/b&gt; came out empty</li>" in text
    assert "<td>notes</td>" not in text
    many = page_of(tmp_path, seeds=1, arms=ONE, notes=[f"note {index}" for index in range(23)])
    assert "note 19" in many
    assert "note 20" not in many
    assert "and 3 more" in many
    assert "Notes on the data" not in page_of(tmp_path, seeds=1, arms=ONE)


def test_labels_are_taken_literally(tmp_path: Path):
    label = "<b>A</b> & $B$, to_C → 日本"
    text = page_of(tmp_path, vary={"pair": {label: {"data.name": "cifar10"}, "1.0": {"data.name": "svhn"}}})
    assert "<b>A" not in text
    assert "<td>&lt;b&gt;A&lt;/b&gt; &amp; $B$, to_C → 日本</td>" in text
    assert "<td>1.0</td>" in text
    for figure in figures_of(tmp_path, vary={"pair": {label: {}, "1.0": {}}}).values():
        assert style.to_png(figure).startswith(b"\x89PNG")


def test_long_titles_take_several_lines():
    assert wrap_title("CIFAR-100 to CIFAR-10") == "CIFAR-100 to CIFAR-10"
    title = "the first hundred classes of ImageNet to CIFAR-10, target fraction = 0.1"
    assert wrap_title(title) == "the first hundred classes of\nImageNet to CIFAR-10\ntarget fraction = 0.1"


def test_the_sentence_of_pairs_and_fractions_can_be_read(six: tuple[Path, dict[str, ReportFigure]]):
    text = " ".join(describe_run(load(six[0])))
    assert "pair =" not in text
    assert "of 24 settings" in text
    assert len(text) < 1400  # two arms at 24 settings each


def test_missing_cells_are_named_by_their_label(tmp_path: Path):
    gone = "SVHN to CIFAR-10"
    folder = write_run(
        tmp_path, stream="pretrain", seeds=2, vary={"pair": PAIRS, **OVER_P},
        leave_out=lambda cell: (cell["pair"], cell["stream.fraction"], cell["strategy"]) == (gone, 0.3, "warm_start"),
    )  # fmt: skip
    line = "warm start, SVHN to CIFAR-10, target fraction = 0.3, seed {}: missing (not run yet, or failed)"
    assert missing_or_failed(load(folder)) == [line.format(0), line.format(1)]


def test_the_terminal_s_table_shows_labels_whole(tmp_path: Path):
    run = load(write_run(tmp_path, stream="pretrain", vary={"pair": some_pairs(2), **OVER_P}))
    console = Console(width=100, file=io.StringIO())
    console.print(terminal_table(run))
    text = console.file.getvalue()
    assert "…" not in text
    assert "CIFAR-100 to" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("stream", ["online", "split"])
def test_older_tables_without_data_sets_are_drawn_alike(tmp_path: Path, stream: str):
    folder = write_run(tmp_path, stream=stream, seeds=2)
    before = [style.to_svg(figure) for figure in draw_figures(load(folder))]
    pd.read_csv(folder / "rounds.csv").drop(columns="dataset").to_csv(folder / "rounds.csv", index=False)
    run = load(folder)
    assert [style.to_svg(figure) for figure in draw_figures(run)] == before
    assert "data set" not in html.rounds_table(run).head
