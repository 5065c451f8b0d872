"""Curves of any columns by epoch, by round or by samples: the kind `curves` of a scenario's `figures:`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from warmstart_sim.report.curves import (
    PLACES,
    draw_by_epoch,
    epochs_note,
    has_curve,
    has_stages,
    own_epochs,
    with_difference,
    with_first_phase,
)
from warmstart_sim.report.layout import label_x, label_y, make_subplots, panels_note, set_log
from warmstart_sim.report.panels import (
    Line,
    Panel,
    draw_mean,
    evenly_spread,
    half_width,
    has_values,
    line_axis,
    plus_minus,
    same_data,
    seeds_note,
    split_into_panels,
)
from warmstart_sim.report.published_points import NOTE, draw_published
from warmstart_sim.report.quantities import Quantity, column_quantity
from warmstart_sim.report.style import INK, ReportFigure, add_hover, styled
from warmstart_sim.report.wording import capitalized, join_words
from warmstart_sim.results.columns import column_of
from warmstart_sim.results.figure_settings import Curves, listed
from warmstart_sim.results.statistics import counted_seconds, over_seeds
from warmstart_sim.results.tables import Run

MOST_ROUNDS_BY_EPOCH = 3


@styled
def plot_curves(run: Run, settings: Curves, published: pd.DataFrame | None = None) -> ReportFigure | None:
    """Plots columns of rounds.csv or epochs.csv; with several columns, a panel or a line for each."""
    table = _rows(run, settings)
    side_by_side = not has_stages(run) or settings.rounds is not None
    quantities = [_quantity(run, table, name) for name in listed(settings.y) or (run.metric,)]
    shown = {each.title: each for each in quantities if has_values(each.rows, each.column)}
    if not shown:
        return None
    value = "compared_seconds" if all(each.column == "compared_seconds" for each in shown.values()) else "value"
    long = _stacked(shown, value)
    panels = _split(run, settings, long, several=len(shown) > 1)
    labels = [_y_label([shown[title] for title in _titles(panel.lines)]) for panel in panels]
    figure, (axs,) = make_subplots(panels, share_x=same_data(run), share_y=len(set(labels)) == 1 and same_data(run))
    has_published = False
    if settings.x == "epoch":
        ends = [draw_by_epoch(run, ax, panel, value, side_by_side) for ax, panel in zip(axs, panels, strict=False)]
        for ax, end in zip(axs, ends, strict=True):
            ax.set_xlim(0, 1 + (max(ends) if same_data(run) else end))
    else:
        for ax, panel in zip(axs, panels, strict=False):
            has_published |= _draw_rounds(run, ax, panel, settings, value, shown, published)
    _label(axs, settings, labels)
    for ax, panel in zip(axs, panels, strict=False):
        _set_scales(ax, settings, {shown[title].kind for title in _titles(panel.lines)})
    by = "after each epoch" if settings.x == "epoch" else f"by {PLACES[settings.x]}"
    caption = f"{capitalized(join_words([each.description for each in shown.values()]))}, {by}. {seeds_note(run)}"
    if settings.x == "epoch":
        caption += f" {epochs_note(run, table, panels, side_by_side)}"
        drawn, rounds = table["round"].nunique(), run.epochs["round"].nunique()
        if settings.rounds is None and drawn < rounds:
            caption += f" {drawn} of {rounds} rounds are drawn, evenly spread."
    caption += "".join(each.note for each in shown.values()) + panels_note(run, panels) + NOTE * has_published
    return ReportFigure("curves", capitalized(f"{join_words(list(shown))} by {PLACES[settings.x]}"), caption, figure)


def _rows(run: Run, settings: Curves) -> pd.DataFrame:
    """The rows of rounds.csv or epochs.csv that are drawn."""
    if settings.x == "epoch":
        table = own_epochs(run)
        every = tuple(sorted(table["round"].unique()))
        rounds = settings.rounds or (every if has_stages(run) else evenly_spread(every, MOST_ROUNDS_BY_EPOCH))
    else:
        table = counted_seconds(run.rounds)
        if run.pretrained:  # a first phase is on other data
            table = table[~table["shared"].astype(bool)]
        rounds = settings.rounds or tuple(table["round"].unique())
    return table[table["round"].isin(rounds)]


def _quantity(run: Run, table: pd.DataFrame, name: str) -> Quantity:
    rows = with_difference(run, table) if name == "difference" else table
    return column_quantity(run, rows, name, "rounds")


def _stacked(shown: Mapping[str, Quantity], value: str) -> pd.DataFrame:
    """The rows of all quantities, one below the other: their titles in the column y, and their values in `value`."""
    parts = []
    for title, each in shown.items():
        rows = each.rows.copy()
        rows["y"], rows[value] = title, each.scale * each.rows[each.column]
        parts.append(rows)
    stacked = pd.concat(parts)
    stacked["y"] = pd.Categorical(stacked["y"], list(shown), ordered=True)
    return stacked


def _split(run: Run, settings: Curves, long: pd.DataFrame, several: bool) -> list[Panel]:
    """The panels, with a line of its own for a first phase that all arms share."""
    asked = settings.panels
    if asked is None:
        asked = ("y", *(axis for axis in run.axes if axis != line_axis(run)))
    keys = [column_of(key, run.scenario["strategies"]) for key in asked if key != "y" or several]
    panels = split_into_panels(run, long, panels=keys, more=["y"] if several else [])
    if settings.x != "epoch" or "strategy" in keys:
        return panels
    return [with_first_phase(panel) if len(_titles(panel.lines)) == 1 else panel for panel in panels]


def _titles(lines: Sequence[Line]) -> list[str]:
    """The titles of the columns that these lines draw."""
    return list(dict.fromkeys(str(title) for line in lines for title in line.rows["y"].unique()))


def _y_label(quantities: Sequence[Quantity]) -> str:
    """The label of a y axis: the column's, or for several columns their unit."""
    labels = {each.label for each in quantities}
    units = {each.unit for each in quantities}
    return labels.pop() if len(labels) == 1 else units.pop() if len(units) == 1 else ""


def _label(axs: Sequence[Axes], settings: Curves, labels: Sequence[str]) -> None:
    label_x(list(axs), PLACES[settings.x])
    if len(set(labels)) == 1:
        label_y(list(axs), labels[0])
        return
    for ax, label in zip(axs, labels, strict=False):
        ax.set_ylabel(label)


def _set_scales(ax: Axes, settings: Curves, kinds: set[str]) -> None:
    if settings.x == "train_samples":
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    if "difference" in kinds:
        ax.axhline(0, color=INK, linewidth=1)
    if kinds == {"cost"} and "y" not in settings.log:
        ax.set_ylim(bottom=0)
    set_log(ax, settings.log)


def _draw_rounds(
    run: Run,
    ax: Axes,
    panel: Panel,
    settings: Curves,
    value: str,
    shown: Mapping[str, Quantity],
    published: pd.DataFrame | None,
) -> bool:
    """Draws a panel by round or by samples; returns whether it has published numbers."""
    few = settings.x == "round" and not has_curve(run)
    if few:
        _draw_few_rounds(run, ax, panel, value)
    has_published = False
    for line in panel.lines:
        if not few:
            draw_mean(run, ax, line, settings.x, value)
        quantity = shown[_titles([line])[0]]
        last = line.rows[settings.x].max()
        has_published |= draw_published(run, ax, line, published, quantity.column, last, quantity.scale)
    return has_published


def _draw_few_rounds(run: Run, ax: Axes, panel: Panel, column: str) -> None:
    """Draws the means of one or two rounds as points with error bars, the lines side by side."""
    step = 0.6 / max(1, len(panel.lines))
    for index, line in enumerate(panel.lines):
        table = over_seeds(line.rows.dropna(subset=column), ["round"], column)
        x = table["round"] + step * (index - (len(panel.lines) - 1) / 2)
        half = half_width(run, table)
        texts = [f"{line.label}: {plus_minus(*each)}" for each in zip(table["mean"], half, strict=True)]
        add_hover(ax, x, table["mean"], texts)
        ax.errorbar(
            x, table["mean"], yerr=half, color=line.style.color, marker=line.style.marker, markersize=9,
            linestyle="", elinewidth=1.8,
        )  # fmt: skip
    rounds = [each for line in panel.lines for each in line.rows["round"].unique()]
    ax.set_xlim(min(rounds, default=0) - 0.5, max(rounds, default=0) + 0.5)
