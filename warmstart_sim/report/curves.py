"""Figures over time: accuracy, train time and epochs by round, and accuracy by epoch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

from warmstart_sim.report.layout import label_outer, make_subplots, panels_note, wrap_title
from warmstart_sim.report.panels import Line, Panel, draw_mean, has_values, same_data, seeds_note, split_into_panels
from warmstart_sim.report.published_points import NOTE, draw_published
from warmstart_sim.report.style import GREY, INK, LineStyle, ReportFigure, styled
from warmstart_sim.report.timing import comparable_times
from warmstart_sim.report.wording import capitalized, join_words, readable
from warmstart_sim.results.statistics import counted_seconds
from warmstart_sim.results.tables import Run

FEWEST_ROUNDS = 3  # of a curve by round; with fewer, accuracy by epoch says more
MOST_ROUNDS_BY_EPOCH = 3
SMALL_BATCH = 16  # samples, at most, and at most an eighth of a full batch
MOST_SMALL = 4  # rounds in a sentence
FIRST_PHASE = "first phase (shared)"
SAMPLES = "training samples so far"
PLACES = {"train_samples": SAMPLES, "round": "round", "epoch": "epoch"}  # the words for an x-axis


@styled
def learning_curves(run: Run, published: pd.DataFrame | None = None) -> ReportFigure | None:
    """Plots accuracy against the training samples so far, a line for each arm (Ash & Adams, Figures 2 left and 7)."""
    if not has_curve(run) or not has_values(run.rounds, run.metric):
        return None
    caption = f"{capitalized(run.metric)} after each round{_against(run)}. {seeds_note(run)}{small_batch_note(run)}"
    label = f"{readable(run.metric)} (%)"
    return _plot_by_round(
        run, run.rounds, "learning_curves", "Accuracy as data arrive", caption, run.metric, 100, label, published
    )


@styled
def difference_by_round(run: Run) -> ReportFigure | None:
    """Plots the difference in accuracy from the reference with the same seed after each round."""
    pairs = with_difference(run, run.rounds)
    if not has_curve(run) or not has_values(pairs, "difference"):
        return None
    reference = readable(run.reference)
    caption = (
        f"{capitalized(run.metric)} after each round minus that of {reference} with the same seed"
        f"{_against(run)}. {seeds_note(replace(run, rounds=pairs))} The line marks zero."
    )
    title, label = f"Difference from {reference} by round", f"difference from\n{reference} (points)"
    return _plot_by_round(run, pairs, "difference_by_round", title, caption, "difference", 100, label)


def with_difference(run: Run, rounds: pd.DataFrame, how: Literal["inner", "left"] = "inner") -> pd.DataFrame:
    """Adds `difference` to the rounds of an arm's own: the metric minus the reference's in the same round and seed.

    Args:
        run: The run.
        rounds: As in rounds.csv.
        how: "inner" keeps the rounds of other arms that have such a partner; "left" keeps all, with empty differences.
    """
    own = rounds[~rounds["shared"].astype(bool)]
    base = own[own["strategy"] == run.reference]
    on = ["seed", "round", *(axis for axis in run.axes if base[axis].notna().any())]
    others = own if how == "left" else own[own["strategy"] != run.reference]
    pairs = others.merge(base[[*on, run.metric]], how, on=on, suffixes=("", "_reference"))
    difference = pairs[run.metric] - pairs.pop(f"{run.metric}_reference")
    return pairs.assign(difference=difference.mask(pairs["strategy"] == run.reference))


@styled
def train_time(run: Run) -> ReportFigure | None:
    """Plots the train seconds of each round against the training samples so far (Ash & Adams, Figure 2 right)."""
    if not has_curve(run):
        return None
    times = comparable_times(counted_seconds(run.rounds))
    caption = (
        f"Train time of each round, without evaluation and checks of the stop rule, {times.in_full}. "
        f"{seeds_note(replace(run, rounds=times.rows))}{small_batch_note(run)}{times.note('rounds')}"
    )
    label = times.axis_label("train time per round")
    return _plot_by_round(
        run, times.rows, "train_time", "Train time by round", caption, "compared_seconds", 1 / times.unit_seconds, label
    )


@styled
def epochs_per_round(run: Run) -> ReportFigure | None:
    """Plots the epochs that each round needed to meet the stop rule."""
    if not has_curve(run):
        return None
    caption = f"Epochs of each round until the stop rule was met. {seeds_note(run)}{small_batch_note(run)}"
    if capped := int((run.rounds["status"] == "capped").sum()):
        caption += f" {capped} of {len(run.rounds)} rounds reached the cap instead."
    return _plot_by_round(
        run, run.rounds, "epochs_per_round", "Epochs per round", caption, "epochs", 1, "epochs per round"
    )


def small_batch_note(run: Run) -> str:
    """A caption's sentence on rounds whose epochs end in a batch of few samples, or nothing."""
    batch = run.rounds.get("training.batch_size", (run.scenario.get("training") or {}).get("batch_size", 1))
    samples = run.rounds["samples_seen"] / run.rounds["epochs"]
    last = samples % batch
    # A single last sample joins the batch before it.
    small = (samples > batch) & (last > 1) & (last <= SMALL_BATCH) & (last <= batch / 8)
    if not small.any():
        return ""
    counts = sorted(samples[small].unique())
    rounds = f"{join_words([f'{count:,.0f}' for count in counts[:MOST_SMALL]])} samples"
    rounds += ", and elsewhere," if len(counts) > MOST_SMALL else ""
    sizes = " to ".join(f"{size:.0f}" for size in dict.fromkeys([last[small].min(), last[small].max()]))
    return (
        f" At {rounds} the last batch of each epoch has only {sizes} samples: so small a batch disturbs "
        "training, most of all with BatchNorm, and more epochs may be needed."
    )


def has_curve(run: Run) -> bool:
    """Whether there are enough rounds for a curve by round."""
    return run.rounds["round"].nunique() >= FEWEST_ROUNDS


def round_axis(run: Run) -> Literal["train_samples", "round"]:
    """The column that tells a cell's rounds apart: its training samples if they always grow, else the round."""
    return "train_samples" if (_sizes(run).diff().dropna() > 0).all() else "round"


def has_stages(run: Run) -> bool:
    """Whether cells have several rounds on the same training samples."""
    return _sizes(run).nunique().max() == 1 and run.rounds["round"].nunique() > 1


def _sizes(run: Run) -> Any:
    """The training samples of the rounds, grouped by cell."""
    by_round = run.rounds.sort_values("round", kind="stable")
    return by_round.groupby(["strategy", *run.axes, "seed"], observed=True, dropna=False)["train_samples"]


def _against(run: Run) -> str:
    return f", against the {SAMPLES}" if round_axis(run) == "train_samples" else ""


def _plot_by_round(
    run: Run,
    rounds: pd.DataFrame,
    name: str,
    title: str,
    caption: str,
    column: str,
    scale: float,
    label: str,
    published: pd.DataFrame | None = None,
) -> ReportFigure:
    panels, has_published, x = split_into_panels(run, rounds), False, round_axis(run)
    figure, (axs,) = make_subplots(panels, share_x=same_data(run), share_y=same_data(run))
    for ax, panel in zip(axs, panels, strict=False):
        for line in panel.lines:
            draw_mean(run, ax, line, x, column, scale)
            last = line.rows[x].max()
            has_published |= draw_published(run, ax, line, published, column, last, scale)
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        if column == "difference":
            ax.axhline(0, color=INK, linewidth=1)
        elif column != run.metric:
            ax.set_ylim(bottom=0)
    label_outer(axs, PLACES[x], label)
    return ReportFigure(name, title, caption + panels_note(run, panels) + NOTE * has_published, figure)


@styled
def accuracy_by_epoch(run: Run) -> ReportFigure | None:
    """Plots accuracy after every epoch, up to three rounds side by side (Ash & Adams, Figure 1), or all stages."""
    epochs, side_by_side = run.epochs, not has_stages(run)
    if epochs.empty or not has_values(epochs, run.metric):
        return None
    if side_by_side and epochs["round"].nunique() > MOST_ROUNDS_BY_EPOCH:
        return None
    epochs = own_epochs(run)
    panels = panels_by_epoch(run, epochs)
    figure, (axs,) = make_subplots(panels, share_x=same_data(run), share_y=same_data(run))
    ends = [
        draw_by_epoch(run, ax, panel, run.metric, side_by_side, 100) for ax, panel in zip(axs, panels, strict=False)
    ]
    for ax, end in zip(axs, ends, strict=True):
        ax.set_xlim(0, 1 + (max(ends) if same_data(run) else end))
    label_outer(axs, "epoch", f"{readable(run.metric)} (%)")
    caption = f"{capitalized(run.metric)} after each epoch. {seeds_note(run)} "
    caption += epochs_note(run, epochs, panels, side_by_side) + small_batch_note(run)
    return ReportFigure("accuracy_by_epoch", "Accuracy by epoch", caption + panels_note(run, panels), figure)


def own_epochs(run: Run) -> pd.DataFrame:
    """The epochs with the training samples of their rounds, without those of a first phase on other data."""
    epochs = run.epochs
    if run.pretrained:
        epochs = epochs[~epochs["shared"].astype(bool)]
    keys = ["strategy", *run.axes, "seed", "round"]
    return epochs.merge(run.rounds[[*keys, "train_samples"]], how="left", on=keys)


def panels_by_epoch(run: Run, epochs: pd.DataFrame) -> list[Panel]:
    """The panels of a table of epochs, with a line of its own for a first phase that all arms share."""
    return [with_first_phase(panel) if panel.lines else panel for panel in split_into_panels(run, epochs)]


def with_first_phase(panel: Panel) -> Panel:
    """Draws the shared rounds once, as a line of their own instead of one copy in every arm.

    The panel stays as it is if arms differ in their first phase, as they do with their own augmentation or training
    options.
    """
    rows = pd.concat([line.rows for line in panel.lines])
    position = ["seed", "round", "epoch"]
    shared = rows[rows["shared"].astype(bool)].drop_duplicates([*position, "running_train_loss"])
    if shared.empty or shared.duplicated(position).any():
        return panel
    own = [replace(line, rows=line.rows[~line.rows["shared"].astype(bool)]) for line in panel.lines]
    first = Line("", FIRST_PHASE, LineStyle(GREY, ""), shared)
    return Panel(panel.title, [first, *(line for line in own if len(line.rows))])


def draw_by_epoch(run: Run, ax: Axes, panel: Panel, column: str, side_by_side: bool, scale: float = 1) -> int:
    """Draws a column of epochs, round after round; returns the number of epochs.

    Args:
        run: The run.
        ax: Where to draw.
        panel: Lines of epochs.
        column: The column.
        side_by_side: Whether a round begins at the same place for all lines, after the longest cell of the round
            before; otherwise each line goes on where its own last round has ended.
        scale: A factor.
    """
    start, ends = 0, dict.fromkeys(map(id, panel.lines), 0)
    if panel.title:
        ax.set_title(wrap_title(panel.title), loc="left", pad=17 if side_by_side else None)  # above the text of _mark
    rows = pd.concat([line.rows for line in panel.lines])
    for index, of_round in rows.groupby("round"):
        for line in panel.lines:
            part = line.rows[line.rows["round"] == index]
            if has_values(part, column):
                begin = start if side_by_side else ends[id(line)]
                draw_mean(run, ax, replace(line, rows=_carry_on(part, column, begin)), "epoch", column, scale, [-1])
                ends[id(line)] = begin + int(part["epoch"].max())
        if side_by_side:
            _mark(ax, of_round, start, several=rows["round"].nunique() > 2)
        start += int(of_round["epoch"].max())
    return start if side_by_side else max(ends.values())


def _mark(ax: Axes, rows: pd.DataFrame, start: int, several: bool) -> None:
    """Marks the beginning of a round, and says how many training samples it has."""
    if start:
        ax.axvline(start + 0.5, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    if rows["train_samples"].nunique() == 1:
        count = f"{rows['train_samples'].iloc[0]:,.0f}"
        text = f"n = {count}" if several else f"{count} samples"
        middle, above = start + int(rows["epoch"].max()) / 2, ax.get_xaxis_transform()
        ax.text(middle, 1.01, text, ha="center", va="bottom", size=9.5, transform=above)


def _carry_on(rows: pd.DataFrame, column: str, start: int) -> pd.DataFrame:
    """One line's epochs of one round, from `start` on; seeds that have stopped keep their last value."""
    by_seed = rows.pivot_table(index="epoch", columns="seed", values=column, aggfunc="first").ffill()
    by_seed.index += start
    return by_seed.rename_axis("epoch").reset_index().melt("epoch", value_name=column)


def epochs_note(run: Run, epochs: pd.DataFrame, panels: list[Panel], side_by_side: bool) -> str:
    """The sentences of a caption on the lines of `draw_by_epoch`."""
    text = "A seed that has met its stop rule keeps its last value while others train on."
    if any(line.label == FIRST_PHASE for panel in panels for line in panel.lines):
        text += " The first phase is trained once for each seed and shared by all arms."
    if run.pretrained and run.epochs["shared"].astype(bool).any():
        text += " The first phase, on other data, is not drawn."
    if not side_by_side:
        return text + " The stages of an arm follow one another; a marker is the end of a stage."
    if epochs["round"].nunique() > 2:
        text += " n is the number of training samples."
    if epochs["round"].nunique() > 1:
        text += " At a dashed line new data arrive, and every arm, including random init, starts its next round."
    return text
