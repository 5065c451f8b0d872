"""A point for each cell, two columns against each other: the kind `scatter` of a scenario's `figures:`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes

from warmstart_sim.report.comparisons import cell_values
from warmstart_sim.report.layout import cut_note, label_outer, make_subplots, panel_count, scale_note, set_log
from warmstart_sim.report.panels import MOST_LINES, Line, Panel, arm_styles, is_number, same_data, split_by
from warmstart_sim.report.quantities import Quantity, column_quantity
from warmstart_sim.report.style import (
    INK,
    MARKERS,
    PALETTE,
    LineStyle,
    ReportFigure,
    add_hover,
    sequential_colors,
    styled,
)
from warmstart_sim.report.wording import arm_label, axis_names, axis_values, capitalized, key_name, setting_label
from warmstart_sim.results.columns import column_of
from warmstart_sim.results.figure_settings import Scatter, of_arm
from warmstart_sim.results.tables import Run

MOST_SHAPES = 2000  # points drawn as shapes; more become one image
BINS = 6  # of a number with too many values for a colour each


@styled
def plot_scatter(run: Run, settings: Scatter) -> ReportFigure | None:
    """Plots one column against another, with a colour for each arm or for each value of another key."""
    table = cell_values(run, settings.table, settings.round)
    arms = run.scenario["strategies"]
    x = column_quantity(run, table, column_of(settings.x, arms), "cells")
    y = column_quantity(run, table, column_of(settings.y or run.metric, arms), "cells")
    points = table.loc[x.rows.index.intersection(y.rows.index)].dropna(subset=[x.column, y.column])
    if points.empty:
        return None
    color = column_of(settings.color, arms)
    panels = [
        Panel(title, list(_lines(run, points, rows, color)))
        for title, rows in split_by(run, points, [column_of(key, arms) for key in settings.panels])
    ]
    shared = same_data(run)
    figure, (axs,) = make_subplots(panels, share_x=shared, share_y=shared)
    figure.set_dpi(200)  # of points drawn as an image
    for ax, panel in zip(axs, panels, strict=False):
        for line in panel.lines:
            _draw_points(run, ax, line, x, y, as_image=len(points) > MOST_SHAPES)
        if of_arm(settings.x)[0] == y.column:
            middle = points[y.column].mean() * y.scale
            ax.axline((middle, middle), (middle + 1, middle + 1), color=INK, linewidth=1)  # where both are equal
        if x.kind == "cost" and "x" not in settings.log:
            ax.set_xlim(left=0)
        set_log(ax, settings.log)
    label_outer(axs, x.label, y.label)
    of = f"row of {settings.table}.csv" if settings.table else "cell, an arm with one seed and one setting"
    when = "" if settings.table else f" after round {settings.round}" if settings.round is not None else " at the end"
    caption = f"{capitalized(y.description)}{when}, against {x.description}: a point for each {of}."
    if color != "strategy":
        caption += f" The colours are those of {key_name(run, color) or color}."
    caption += "".join(dict.fromkeys([x.note, y.note]))
    shown = panel_count(panels)
    caption += cut_note(shown, len(panels)) + scale_note(run, shown)
    return ReportFigure("scatter", capitalized(f"{y.title} against {x.title}"), caption, figure)


def _lines(run: Run, points: pd.DataFrame, rows: pd.DataFrame, color: str) -> Iterator[Line]:
    """The rows of each arm, or of each value of another key; values have their colour in all panels."""
    if color == "strategy":
        yield from _arms(run, rows)
        return
    groups, labels = points[color], {}
    name = key_name(run, color)
    values = groups.dropna().drop_duplicates().sort_values().tolist()
    if is_number(points, color) and len(values) > MOST_LINES:
        bins = pd.qcut(groups, BINS, labels=False, duplicates="drop")
        ends = groups.groupby(bins).agg(["min", "max"])
        labels = {number: f"{name} {low:.3g} to {high:.3g}".strip() for number, low, high in ends.itertuples()}
        groups, values = bins, list(labels)
    ordered = sequential_colors(len(values)) if is_number(points, color) else None
    for index, value in enumerate(values):
        own = rows[groups.loc[rows.index] == value]
        style = LineStyle(
            ordered[index] if ordered else PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)], ""
        )
        if len(own):
            yield Line("", labels.get(value) or axis_values(name, [value]), style, own)
    yield from _arms(run, rows[groups.loc[rows.index].isna()])


def _arms(run: Run, rows: pd.DataFrame) -> Iterator[Line]:
    styles = arm_styles(run)
    for arm, own in rows.groupby("strategy", observed=True):
        yield Line(str(arm), arm_label(run, str(arm)), replace(styles[str(arm)], linestyle=""), own)


def _draw_points(run: Run, ax: Axes, line: Line, x: Quantity, y: Quantity, as_image: bool) -> None:
    rows, style = line.rows, line.style
    across, up = rows[x.column] * x.scale, rows[y.column] * y.scale
    ax.plot(
        across, up, style.marker, color=style.color, markersize=2.5 if as_image else 6.5, rasterized=as_image,
        alpha=0.85, markeredgewidth=0 if as_image else 0.6,
    )  # fmt: skip
    names = axis_names(run)
    texts = [
        ", ".join(filter(None, [arm_label(run, str(row["strategy"])), setting_label(row, names)]))
        + f": {up_value:.4g} at {across_value:.4g}"
        for row, across_value, up_value in zip(rows.to_dict("records"), across, up, strict=True)
    ]
    add_hover(ax, across, up, texts)
