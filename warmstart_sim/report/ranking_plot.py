"""Draws the analysis `ranking`: the gain at equal time, arms that do not differ, and the time at equal accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from warmstart_sim.report.layout import LETTER
from warmstart_sim.report.style import GREY, INK, PALETTE, PAPER, ReportFigure, add_hover, styled
from warmstart_sim.report.wording import (
    arm_label,
    axis_names,
    duration,
    percent,
    points,
    ratio,
    readable,
    setting_label,
)
from warmstart_sim.results.inference import LEVEL
from warmstart_sim.results.tables import Run

COLORS = {"gain": PALETTE[1], "loss": PALETTE[0]}  # all else is grey


def ranking_figures(run: Run) -> Iterator[ReportFigure]:
    """A figure for each setting of the analysis `ranking`, if the run has its table."""
    if not (run.folder / "ranking.csv").exists():
        return
    for index, (varied, rows) in enumerate(run.by_setting(run.analysis("ranking"))):
        yield _draw(run, rows.reset_index(drop=True), setting_label(varied, axis_names(run)), index)


@styled
def _draw(run: Run, rows: pd.DataFrame, setting: str, index: int) -> ReportFigure:
    names = [arm_label(run, str(arm)) for arm in rows["strategy"]]
    figure = Figure(figsize=(7.6 + LETTER * max(map(len, names)), 1.2 + 0.27 * len(rows)))
    gain, groups, time = figure.subplots(1, 3, sharey=True, width_ratios=[3, 0.9, 2])
    verdicts, reference = rows["verdict"].fillna(""), readable(run.reference)
    colors = [COLORS.get(verdict, GREY) for verdict in verdicts]
    differences = rows[["difference", "difference_low", "difference_high"]]
    _draw_intervals(gain, 100 * differences, colors, colors)
    gain.axvline(0, color=INK, linewidth=1.2)
    gain.set_xlabel(f"accuracy at equal time\n(points from {reference})")
    texts = [
        f"{name}: {points(*difference)} points, {verdict or 'reference'}"
        for name, difference, verdict in zip(names, differences.to_numpy(), verdicts, strict=True)
    ]
    add_hover(gain, 100 * rows["difference"], rows.index, texts)

    ratios = rows[["time_ratio", "time_ratio_low", "time_ratio_high"]]
    clear = rows["time_p_holm"] < LEVEL
    shades = np.select([clear & (ratios["time_ratio"] < 1), clear], [COLORS["gain"], COLORS["loss"]], GREY)
    time.set_xscale("log", base=2)
    _draw_intervals(time, ratios, shades, np.where(rows["reached"] < rows["seeds"], PAPER, shades))
    time.axvline(1, color=INK, linewidth=1.2)
    time.xaxis.set_major_formatter("{x:g}")
    time.xaxis.set_minor_locator(NullLocator())
    time.set_xlabel(f"time at equal accuracy\n(times that of {reference})")
    add_hover(
        time, ratios["time_ratio"], rows.index,
        [f"{name}: {ratio(*row)}" for name, row in zip(names, ratios.to_numpy(), strict=True)],
    )  # fmt: skip

    letters = list(dict.fromkeys("".join(rows["groups"])))
    for x, letter in enumerate(letters):
        members = rows.index[rows["groups"].str.contains(letter, regex=False)]
        groups.plot([x, x], [members.min() - 0.3, members.max() + 0.3], color=INK, linewidth=2.2)
    groups.set_xlim(-1, max(1, len(letters)))
    groups.set_axis_off()

    gain.set_yticks(range(len(rows)), names)
    gain.set_ylim(len(rows) - 0.4, -0.6)
    for ax in (gain, time):
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
    first = rows.iloc[0]
    caption = (
        f"Arms in the order of their mean rank by {readable(run.metric)} at equal time, "
        f"{duration(first['equal_seconds'])} of training. Left: the difference from {reference} with the same seed; "
        "bars are 95 % intervals, adjusted for all arms by Holm's method. Blue: a gain; orange: a loss; grey: noise. "
        "Middle: arms beside one bar do not differ (Nemenyi's test of mean ranks). Right: the time to reach "
        f"{percent(first['equal_accuracy'])}, with the same kind of intervals; hollow where not all seeds reach it. "
        f"{first['seeds']} seeds."
    )
    name = "ranking" + f"_{index + 1}" * bool(setting)
    return ReportFigure(name, f"Ranking: {setting}" if setting else "Ranking", caption, figure)


def _draw_intervals(ax: Axes, table: pd.DataFrame, colors: Iterable[str], fills: Iterable[str]) -> None:
    """A point with its interval in each row; the columns are the point and the ends."""
    for row, ((middle, low, high), color, fill) in enumerate(zip(table.to_numpy(), colors, fills, strict=True)):
        ax.plot([low, high], [row, row], color=color, linewidth=2)
        ax.plot(
            [middle], [row], "o", color=color, markersize=6,
            markerfacecolor=fill, markeredgecolor=color, markeredgewidth=1.6,
        )  # fmt: skip
