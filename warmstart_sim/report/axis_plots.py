"""Plots against a varied number: final accuracy, the difference from the reference, and train time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.ticker import NullLocator
from matplotlib.transforms import ScaledTranslation

from warmstart_sim.report.comparisons import by_number, cell_values, complete_cells
from warmstart_sim.report.layout import (
    MOST_COLUMNS,
    label_x,
    label_y,
    make_subplots,
    panels_note,
    set_log,
    set_x_ticks,
    side_by_side,
    subplot_width,
)
from warmstart_sim.report.panels import (
    BAND,
    Line,
    Panel,
    bands_name,
    bar_ends,
    evenly_spread,
    half_width,
    has_values,
    is_number,
    plus_minus,
    same_data,
    split_into_panels,
)
from warmstart_sim.report.published_points import NOTE, draw_published
from warmstart_sim.report.quantities import Quantity, accuracies, column_quantity, costs
from warmstart_sim.report.style import INK, ReportFigure, add_hover, styled
from warmstart_sim.report.wording import TARGET_FRACTION, capitalized, column_name, format_value, join_words
from warmstart_sim.results.columns import column_of
from warmstart_sim.results.figure_settings import Against, listed
from warmstart_sim.results.statistics import over_seeds, paired
from warmstart_sim.results.tables import Run

MOST_TICKS = 12
DODGE, MOST_DODGE = 5, 20  # points between two lines at the same value, and in all
LABELS = {  # longer than the name of the key or column, where there is room
    TARGET_FRACTION: "fraction p of the target data",
    "weights times": "λ, by which all weights are multiplied",
}


@dataclass(frozen=True)
class Options:
    """How a plot against an axis differs from the standard one.

    Attributes:
        panels: The keys that make panels; None: as in `split_into_panels`.
        lines: Further columns whose values make lines.
        log: The logarithmic axes; x is so by itself if its values are wide apart.
        published: See `published_points`.
    """

    panels: Sequence[str] | None = None
    lines: Sequence[str] = ()
    log: Sequence[str] = ()
    published: pd.DataFrame | None = None


@styled
def plot_against_axis(run: Run, axis: str, published: pd.DataFrame | None = None) -> list[ReportFigure]:
    """Plots final accuracy, difference and train time against a varied number (Ash & Adams, Figures 9 and 10).

    Up to four panels are in one figure; with more, each quantity has its own figure.
    """
    complete = complete_cells(run)
    if not is_number(complete, axis) or not has_values(complete, "final_accuracy"):
        return []
    pairs = paired(complete, run.axes, run.reference)
    found = [*accuracies(run, complete, pairs), costs(run, complete, "cells")[0]]
    shown = [each for each in found if has_values(each.rows, axis)]
    options = Options(published=published)
    if len(split_into_panels(run, complete, drawn_axes=(axis,))) <= MOST_COLUMNS:
        return [_plot(run, axis, shown, options)]
    return [_plot(run, axis, [quantity], options, f"_{quantity.name}") for quantity in shown]


@styled
def plot_against(run: Run, settings: Against, published: pd.DataFrame | None = None) -> ReportFigure | None:
    """Plots columns of cells, or of an analysis' table, against a varied number or another column."""
    table = cell_values(run, settings.table, settings.round)
    arms = run.scenario["strategies"]
    axis = settings.x if settings.starred else column_of(settings.x, arms)
    columns = [column_of(name, arms) for name in listed(settings.y) or (run.metric,)]
    if settings.starred:
        columns = [re.sub(r"_[a-z]?\*|\*", "", settings.starred)]  # margin_q*: margin
        table = by_number(table, settings.starred, axis, columns[0])
    found = [column_quantity(run, table, column, "cells") for column in columns]
    kept = [replace(each, rows=each.rows.dropna(subset=each.column)) for each in found]
    shown = [each for each in kept if has_values(each.rows, axis)]
    if not shown:
        return None
    panels = None if settings.panels is None else [column_of(key, arms) for key in settings.panels]
    return _plot(run, axis, shown, Options(panels, listed(settings.lines), settings.log, published))


def _plot(run: Run, axis: str, shown: Sequence[Quantity], options: Options, suffix: str = "") -> ReportFigure:
    count = len(shown)
    split = [split_into_panels(run, each.rows, (axis,), options.panels, options.lines) for each in shown]
    panels, has_published = split[0], False
    figure, by_quantity = make_subplots(panels, count, share_y=same_data(run))
    values = sorted(pd.concat([line.rows[axis] for panel in panels for line in panel.lines]).dropna().unique())
    for axs, quantity, own_panels in zip(by_quantity, shown, split, strict=True):
        ax_of_panel = dict(zip([panel.title for panel in panels], axs, strict=False))
        for panel in own_panels:
            lines = panel.lines if panel.title in ax_of_panel else []
            for index, line in enumerate(lines):
                shift = min(DODGE, MOST_DODGE / len(lines)) * (index - (len(lines) - 1) / 2)
                ax = ax_of_panel[panel.title]
                _draw_line(run, ax, line, axis, quantity, shift)
                place = values[-1] if line.rows[axis].isna().all() else axis  # of a horizontal line: its end
                has_published |= draw_published(
                    run, ax, line, options.published, quantity.column, place, quantity.scale
                )
        for ax in axs:
            ax.margins(x=0.08)
            _scale_x(ax, values)
            set_log(ax, options.log)
            set_x_ticks(ax, evenly_spread(tuple(values), MOST_TICKS), subplot_width(figure, ax))
            ax.xaxis.set_minor_locator(NullLocator())
            if quantity.column == "difference":
                ax.axhline(0, color=INK, linewidth=1)
            if quantity.column == "compared_seconds" and "y" not in options.log:
                ax.set_ylim(bottom=0)
        label_y(axs, quantity.label, each=side_by_side(panels, count))
    name = column_name(run, axis)
    label = LABELS.get(name, name)
    label_x([ax for axs in by_quantity for ax in axs], label)
    title = capitalized(f"{join_words([quantity.title for quantity in shown])} against {label}")
    caption = _caption(run, shown, panels, axis, name, label) + panels_note(run, panels, count, (axis,))
    caption += NOTE * has_published
    return ReportFigure(f"along_{axis}{suffix}", title, caption, figure)


def _caption(run: Run, shown: Sequence[Quantity], panels: list[Panel], axis: str, name: str, label: str) -> str:
    what = capitalized(join_words([quantity.description for quantity in shown]))
    text = (
        f"{what} against {label}. Mean over seeds; bars, for three seeds or more: {bands_name(run)}. Arms stand side "
        "by side at each value."
    )
    if any(line.rows[axis].isna().all() for panel in panels for line in panel.lines):
        text += f" An arm without {name} is a horizontal line."
    return text + "".join(quantity.note for quantity in shown)


def _draw_line(run: Run, ax: Axes, line: Line, axis: str, quantity: Quantity, shift_points: float) -> None:
    """Draws the means of a line with their bars, moved to the side so that the bars of several lines stay apart."""
    style = line.style
    horizontal = bool(line.rows[axis].isna().all())
    table = over_seeds(line.rows, ["strategy" if horizontal else axis], quantity.column)
    mean, half = quantity.scale * table["mean"], quantity.scale * half_width(run, table)
    low, high = (quantity.scale * end for end in bar_ends(run, table, quantity.column))
    if not horizontal:
        shift = ScaledTranslation(shift_points / 72, 0, ax.figure.dpi_scale_trans)
        drawn = ax.errorbar(
            table[axis], mean, yerr=[mean - low, high - mean], color=style.color, marker=style.marker,
            linestyle=style.linestyle, elinewidth=2.4, ecolor=to_rgba(style.color, 0.45),
        )  # fmt: skip
        for artist in drawn.get_children():
            artist.set_transform(ax.transData + shift)
        values = zip(table[axis], mean, half, strict=True)
        texts = [f"{line.label}, {format_value(at)}: {plus_minus(*each)}" for at, *each in values]
        add_hover(ax, table[axis], mean, texts, shift)
        return
    ax.axhline(mean[0], color=style.color, linestyle=style.linestyle)
    if half.notna()[0]:
        ax.axhspan(low[0], high[0], color=style.color, alpha=BAND, linewidth=0)


def _scale_x(ax: Axes, values: Sequence[float]) -> None:
    """Makes the x axis logarithmic for wide ranges; with a zero it is linear up to the smallest positive value."""
    positive = [value for value in values if value > 0]
    if values[0] < 0 or not positive or positive[-1] / positive[0] <= 30:
        return
    if values[0] > 0:
        ax.set_xscale("log")
    else:
        ax.set_xscale("symlog", linthresh=positive[0])
        ax.set_xlim(-positive[0] / 3, 1.5 * positive[-1])
