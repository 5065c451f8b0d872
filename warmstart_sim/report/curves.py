"""Figures over time: accuracy, train time and epochs by round, and accuracy by epoch."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

from warmstart_sim.report.layout import across, canvas, in_lines, label_frames, note
from warmstart_sim.report.panels import BAND, FEWEST_SEEDS, Line, Panel, draw_mean, has_values, same_data, split, spread
from warmstart_sim.report.style import INK, Chart, Look, styled, time_unit
from warmstart_sim.report.timing import left_out, timed_alike
from warmstart_sim.report.wording import TIMING, TIMING_IN_FULL, capital, plain
from warmstart_sim.results.statistics import over_seeds, timed
from warmstart_sim.results.tables import Run

FEWEST_ROUNDS = 3  # of a curve by round; with fewer, accuracy by epoch says more
MOST_ROUNDS_BY_EPOCH = 3
FIRST_PHASE = "first phase (shared)"


@styled
def learning_curves(run: Run) -> Chart | None:
    """Accuracy against the number of training samples so far, a line an arm (Ash & Adams, Figure 2 left, Figure 7)."""
    if not _is_curve(run) or not has_values(run.rounds, run.metric):
        return None
    caption = f"{capital(run.metric)} after each round, against the training samples so far. {spread(run)}"
    label = f"{plain(run.metric)} (%)"
    return _by_round(run, run.rounds, "learning_curves", "Accuracy as data arrive", caption, run.metric, 100, label)


@styled
def train_time(run: Run) -> Chart | None:
    """Seconds of training in each round against the number of training samples (Ash & Adams, Figure 2 right)."""
    if not _is_curve(run):
        return None
    rounds, kind = timed_alike(timed(run.rounds))
    unit, length = time_unit(rounds["train_seconds"].max())
    caption = (
        f"Train time of each round, without evaluation and checks of the stop rule, {TIMING_IN_FULL[kind]}. "
        f"{spread(replace(run, rounds=rounds))}{left_out(run.rounds, rounds, 'rounds')}"
    )
    label = f"train time per round ({unit})\n{TIMING[kind]}"
    return _by_round(run, rounds, "train_time", "Train time by round", caption, "train_seconds", 1 / length, label)


@styled
def epochs_per_round(run: Run) -> Chart | None:
    """Epochs until the stop rule was met, in each round."""
    if not _is_curve(run):
        return None
    capped = int((run.rounds["status"] == "capped").sum())
    caption = f"Epochs of each round until the stop rule was met. {spread(run)}" + (
        f" {capped} of {len(run.rounds)} rounds stopped at the cap instead." if capped else ""
    )
    return _by_round(run, run.rounds, "epochs_per_round", "Epochs per round", caption, "epochs", 1, "epochs per round")


def _is_curve(run: Run) -> bool:
    return run.rounds["round"].nunique() >= FEWEST_ROUNDS


def _by_round(
    run: Run, rounds: pd.DataFrame, name: str, title: str, caption: str, column: str, scale: float, label: str
) -> Chart:
    panels = split(run, rounds)
    figure, (frames,) = canvas(panels, share_x=same_data(run), share_y=same_data(run))
    for frame, panel in zip(frames, panels, strict=False):
        for line in panel.lines:
            draw_mean(frame, line, "train_samples", column, scale)
        frame.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        if column != run.metric:
            frame.set_ylim(bottom=0)
    label_frames(frames, "training samples so far", label)
    return Chart(name, title, caption + note(run, panels), figure, across(panels))


@styled
def accuracy_by_epoch(run: Run) -> Chart | None:
    """Accuracy after every epoch, the rounds in sequence (Ash & Adams, Figure 1), for streams of up to three rounds."""
    epochs = run.epochs
    if epochs.empty or epochs["round"].nunique() > MOST_ROUNDS_BY_EPOCH or not has_values(epochs, run.metric):
        return None
    elsewhere = run.pretrained and epochs["shared"].astype(bool).any()
    if elsewhere:  # the first phase's accuracies are on other data
        epochs = epochs[~epochs["shared"].astype(bool)]
    keys = ["strategy", *run.axes, "seed", "round"]
    epochs = epochs.merge(run.rounds[[*keys, "train_samples"]], how="left", on=keys)
    panels = [_with_first_phase(panel) if panel.lines else panel for panel in split(run, epochs)]
    figure, (frames,) = canvas(panels, share_x=same_data(run), share_y=same_data(run))
    ends = [_draw_rounds(frame, panel, run.metric) for frame, panel in zip(frames, panels, strict=False)]
    for frame, end in zip(frames, ends, strict=True):
        frame.set_xlim(0, 1 + (max(ends) if same_data(run) else end))
    label_frames(frames, "epoch", f"{plain(run.metric)} (%)")
    caption = (
        f"{capital(run.metric)} after each epoch. {spread(run)} A seed that has met its stop rule stays at "
        "its last value while others train on."
    )
    if any(line.label == FIRST_PHASE for panel in panels for line in panel.lines):
        caption += " The first phase is trained once for each seed and shared by all arms."
    if elsewhere:
        caption += " The first phase, on other data, is not drawn."
    if epochs["round"].nunique() > 1:
        caption += " At a dashed line new data arrive, and every arm, random init as well, starts its next round there."
    caption += note(run, panels)
    return Chart("accuracy_by_epoch", "Accuracy by epoch", caption, figure, across(panels))


def _with_first_phase(panel: Panel) -> Panel:
    """The shared rounds as a line of their own, in place of one copy in every arm; the panel itself where arms differ.

    Arms with an augmentation or training options of their own have a first phase of their own.
    """
    rows = pd.concat([line.rows for line in panel.lines])
    place = ["seed", "round", "epoch"]
    shared = rows[rows["shared"].astype(bool)].drop_duplicates([*place, "running_train_loss"])
    if shared.empty or shared.duplicated(place).any():
        return panel
    own = [replace(line, rows=line.rows[~line.rows["shared"].astype(bool)]) for line in panel.lines]
    first = Line("", FIRST_PHASE, Look("#808080", ""), shared)
    return Panel(panel.title, [first, *(line for line in own if len(line.rows))])


def _draw_rounds(frame: Axes, panel: Panel, metric: str) -> int:
    """Draws a panel's rounds one after the other, each as long as its longest cell; the number of epochs in all."""
    start = 0
    if panel.title:
        frame.set_title(in_lines(panel.title), loc="left", pad=17)  # above the numbers of samples
    rows = pd.concat([line.rows for line in panel.lines])
    for index, of_round in rows.groupby("round"):
        for line in panel.lines:
            part = line.rows[line.rows["round"] == index]
            if len(part):
                _draw_epochs(frame, replace(line, rows=part), metric, start)
        if start:
            frame.axvline(start + 0.5, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        length = int(of_round["epoch"].max())
        if of_round["train_samples"].nunique() == 1:
            samples = f"{of_round['train_samples'].iloc[0]:,.0f} samples"
            above = frame.get_xaxis_transform()
            frame.text(start + length / 2, 1.01, samples, ha="center", va="bottom", size=9.5, transform=above)
        start += length
    return start


def _draw_epochs(frame: Axes, line: Line, metric: str, start: int) -> None:
    """One line's epochs of one round, from `start` on; seeds that have stopped are carried on at their last value."""
    by_seed = line.rows.pivot_table(index="epoch", columns="seed", values=metric, aggfunc="first")
    by_seed = by_seed.reindex(range(1, int(line.rows["epoch"].max()) + 1)).ffill()
    long = by_seed.rename_axis("epoch").reset_index().melt("epoch", value_name=metric)
    table = over_seeds(long.dropna(), ["epoch"], metric)
    x, mean, colour = table["epoch"] + start, 100 * table["mean"], line.look.colour
    frame.plot(x, mean, color=colour, linestyle=line.look.dash, marker=line.look.marker, markevery=[-1], zorder=3)
    if table["seeds"].max() < FEWEST_SEEDS:
        frame.plot(by_seed.index + start, 100 * by_seed, color=colour, linewidth=0.7, alpha=0.5, zorder=2)
    else:
        frame.fill_between(x, 100 * table["low"], 100 * table["high"], color=colour, alpha=BAND, linewidth=0)
