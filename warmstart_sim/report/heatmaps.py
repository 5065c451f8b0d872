"""Heatmaps of a grid: final accuracy, the difference from the reference, and costs (Ash & Adams, Figures 8 and 15)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from warmstart_sim.report.comparisons import cell_values
from warmstart_sim.report.grids import Grid, GridPanel, grid_over, without_outliers
from warmstart_sim.report.heatmap_cells import (
    HATCHES,
    MOST_NUMBERS,
    SOME_FAILED,
    STATE_NAMES,
    colors_of,
    draw_states,
    draw_values,
    hatch_style,
    value_text,
)
from warmstart_sim.report.layout import add_legend, columns_for, cut_note, scale_note, set_x_ticks, wrap_title
from warmstart_sim.report.panels import MOST_PANELS, evenly_spread, has_values, same_data
from warmstart_sim.report.quantities import Quantity, accuracies, column_quantity, costs
from warmstart_sim.report.style import (
    INK,
    ReportFigure,
    add_cell_hover,
    styled,
)
from warmstart_sim.report.wording import (
    axis_names,
    capitalized,
    format_value,
    is_empty,
    join_words,
    readable,
    setting_label,
)
from warmstart_sim.results.columns import column_of
from warmstart_sim.results.figure_settings import Heatmap, listed
from warmstart_sim.results.statistics import over_seeds
from warmstart_sim.results.tables import Run

MOST_TICKS = 12
LEAST_CORNER = 0.025  # of the heatmap's width and height
MARK: dict[str, Any] = {"marker": "D", "markersize": 7, "markeredgewidth": 1.4, "color": INK, "linestyle": ""}
CORNER_LINES: dict[str, Any] = {"random init": "-", "warm start": (0, (1.5, 1))}


@styled
def heatmaps(run: Run, grid: Grid) -> list[ReportFigure]:
    """Draws the heatmaps of a grid: one for each quantity that has values."""
    shown = _quantities(run, grid)
    own = [each.rows[each.rows.index.isin(grid.settings.index)] for each in shown]
    return [_heatmap(run, grid, each) for each, rows in zip(shown, own, strict=True) if has_values(rows, each.column)]


@styled
def plot_heatmap(run: Run, settings: Heatmap) -> list[ReportFigure]:
    """Draws any columns over two varied numbers; costs are sums over the rounds of a cell."""
    arms = run.scenario["strategies"]
    grid = grid_over(run, column_of(settings.rows, arms), column_of(settings.columns, arms))
    names = dict(
        zip((run.metric, "difference", "train_seconds", "epochs", "flops"), _quantities(run, grid), strict=True)
    )
    drawn = []
    for column in listed(settings.value) or (run.metric,):
        own, quantity = grid, names.get(column)
        if quantity is None:
            own = replace(
                grid, summary=_with_means(run, grid.summary, column), settings=_with_means(run, grid.settings, column)
            )
            quantity = column_quantity(run, _with_reference(run, own), column, "settings")
        if has_values(quantity.rows[quantity.rows.index.isin(grid.settings.index)], quantity.column):
            drawn.append(_heatmap(run, own, quantity))
    return drawn


def _quantities(run: Run, grid: Grid) -> list[Quantity]:
    """Accuracy, difference, train time, epochs and FLOPs of the settings of a grid."""
    table = _with_reference(run, grid)
    return [*accuracies(run, table, grid.settings), *costs(run, table, "settings")]


def _with_reference(run: Run, grid: Grid) -> pd.DataFrame:
    """The settings of a grid and those of the reference."""
    reference = grid.summary[(grid.summary["strategy"] == run.reference) & (grid.summary["seeds"] > 0)]
    return pd.concat([grid.settings, reference[~reference.index.isin(grid.settings.index)]])


def _with_means(run: Run, settings: pd.DataFrame, column: str) -> pd.DataFrame:
    """Adds the mean over seeds of a column of the cells to a table of settings."""
    keys = ["strategy", *run.axes]
    means = over_seeds(cell_values(run), keys, column)[[*keys, "mean"]].rename(columns={"mean": column})
    merged = settings.drop(columns=column, errors="ignore").merge(means, how="left", on=keys)
    return merged.set_index(settings.index)


def _heatmap(run: Run, grid: Grid, quantity: Quantity) -> ReportFigure:
    panels = list(grid.panels(run))
    shown = panels[:MOST_PANELS]
    figure, axs, width = _make_subplots(grid, len(shown))
    tables = [_table(grid, panel.settings, quantity) for panel in shown]
    every_value = np.concatenate([numbers[np.isfinite(numbers)] for numbers, _, _ in tables])
    references = np.array([_reference_value(run, panel, quantity) for panel in shown])
    shared_scale = same_data(run)
    states: dict[str, bool] = {}  # that occur, in the order of the legend
    outliers = False
    for ax, panel, (numbers, state, some_failed), reference in zip(axs, shown, tables, references, strict=True):
        title = [wrap_title(panel.title)]
        if len(shown) > 1 and np.isfinite(reference):
            title.append(f"{readable(run.reference)}: {value_text(reference, quantity)}")
        ax.set_title("\n".join(title), loc="left")
        scaled = every_value if shared_scale else numbers[np.isfinite(numbers)]
        norm = _norm(scaled, quantity)
        draw_values(ax, numbers, norm, quantity, width / len(grid.columns))
        draw_states(ax, state, some_failed, width / len(grid.columns))
        _add_hovers(ax, run, grid, quantity, numbers, state)
        _frame_corners(ax, grid)
        _label(ax, run, grid, width)
        states |= dict.fromkeys([each for each in HATCHES if (state == each).any()], True)
        states |= {SOME_FAILED: True} if some_failed.any() else {}
        if not shared_scale:
            outliers |= _draw_bar([ax], norm, quantity, scaled, references[[axs.index(ax)]])
    if shared_scale:
        outliers = _draw_bar(axs, norm, quantity, every_value, references)
    handles: dict[str, Artist] = {**_legend_handles(grid, list(states))}
    caption = _caption(run, grid, quantity, states, outliers, len(panels))
    if np.isfinite(references).any():
        number = f": {value_text(references[0], quantity)}" if len(shown) == 1 else ""
        handles[f"{readable(run.reference)}{number}"] = Line2D([], [], **MARK)
        caption += f" The diamond on the colour bar is {readable(run.reference)}."
    add_legend(figure, handles)
    names = axis_names(run)
    title_words = f"{quantity.title} by {names[grid.row]} and {names[grid.column]}"
    name = f"heatmap_{quantity.name.removeprefix('train_')}{grid.suffix}"
    return ReportFigure(name, capitalized(title_words), caption, figure)


def _draw_bar(axs: list[Axes], norm: Normalize, quantity: Quantity, scaled: np.ndarray, references: np.ndarray) -> bool:
    """Draws the colour bar of these subplots, with a mark at each reference; returns whether values lie outside it."""
    below, above = bool((scaled < norm.vmin).any()), bool((scaled > norm.vmax).any())
    extend = {(False, False): "neither", (True, False): "min", (False, True): "max"}.get((below, above), "both")
    bar = axs[0].figure.colorbar(
        ScalarMappable(norm, ListedColormap(colors_of(quantity))), ax=axs, label=quantity.label, aspect=24, pad=0.02,
        extend=extend,
    )  # fmt: skip
    bar.ax.grid(visible=False)
    if isinstance(norm, LogNorm):
        wide = scaled.max() > 10 * scaled.min()
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(6, steps=[1, 2, 5, 10]))
        bar.ax.yaxis.set_minor_locator(NullLocator())
        bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    for reference in references[np.isfinite(references)].clip(norm.vmin, norm.vmax):
        bar.ax.plot(0.5, reference, clip_on=False, **MARK)
    return below or above


def _reference_value(run: Run, panel: GridPanel, quantity: Quantity) -> float:
    """The reference's value at the other varied values of a panel; nan if it has none, or is in the grid itself."""
    rows = quantity.rows[quantity.rows["strategy"] == run.reference]
    for axis, value in panel.other_values.items():
        if not is_empty(value):
            rows = rows[rows[axis].isna() | (rows[axis] == value)]
    if panel.arm == run.reference or len(rows) != 1:
        return np.nan
    return quantity.scale * float(rows[quantity.column].iloc[0])


def _add_hovers(ax: Axes, run: Run, grid: Grid, quantity: Quantity, numbers: np.ndarray, states: np.ndarray) -> None:
    """Adds to each cell its setting with the value, or the reason why there is none."""
    names = {key: axis_names(run)[key] for key in (grid.row, grid.column)}
    texts = {}
    for (row, column), number in np.ndenumerate(numbers):
        value = f"{value_text(number, quantity)} {quantity.unit}"
        without = STATE_NAMES.get(str(states[row, column]), "timed otherwise")
        setting = setting_label({grid.row: grid.rows[row], grid.column: grid.columns[column]}, names)
        texts[row, column] = f"{setting}: {without if np.isnan(number) else value}"
    add_cell_hover(ax, texts)


def _make_subplots(grid: Grid, count: int) -> tuple[Figure, list[Axes], float]:
    """A figure, its subplots, and the approximate width of one in inches."""
    columns = columns_for(count)
    width = (
        min(6.0, max(3.4, 0.66 * len(grid.columns))) if columns == 1 else min(4.2, max(3.0, 0.5 * len(grid.columns)))
    )
    height = min(4.6 if columns == 1 else 3.4, max(2.0, 0.44 * len(grid.rows)))
    rows = math.ceil(count / columns)
    figure = Figure(figsize=((width + 0.6) * columns + 1.1, (height + 0.85) * rows + 0.5))
    axs = figure.subplots(rows, columns, squeeze=False)
    for unused in axs.flat[count:]:
        unused.remove()
    return figure, axs.flat[:count].tolist(), width


def _table(grid: Grid, settings: pd.DataFrame, quantity: Quantity) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(values, states, whether some seeds failed), each of shape (rows, columns) as drawn."""
    shape = len(grid.rows), len(grid.columns)
    numbers, states, some_failed = np.full(shape, np.nan), np.full(shape, "missing", object), np.zeros(shape, bool)
    position = (
        settings[grid.row].map({value: index for index, value in enumerate(grid.rows)}).to_numpy(),
        settings[grid.column].map({value: index for index, value in enumerate(grid.columns)}).to_numpy(),
    )
    numbers[position] = (settings[quantity.column] * quantity.scale).where(settings.index.isin(quantity.rows.index))
    states[position] = settings["state"]
    some_failed[position] = (settings["state"] == "complete") & (settings["gave_up"] + settings["diverged"] > 0)
    return numbers, states, some_failed


def _norm(numbers: np.ndarray, quantity: Quantity) -> Normalize:
    if quantity.kind == "cost":
        low, high = (numbers.min(), numbers.max()) if len(numbers) else (1.0, 2.0)
        return LogNorm(low, high) if low < high else LogNorm(low / 2, high * 2)
    low, high = without_outliers(numbers) if len(numbers) else (0.0, 1.0)
    if quantity.kind == "difference":  # zero is in the middle
        high = max(abs(low), abs(high), 0.1)
        low = -high
    if low == high:
        low, high = low - 0.5, high + 0.5
    return Normalize(low, high)


def _frame_corners(ax: Axes, grid: Grid) -> None:
    for name, (lam, sigma) in grid.corners.items():
        row, column = grid.rows.index(lam), grid.columns.index(sigma)
        # Larger than its cell in a large grid, to stay visible.
        width, height = (max(1.0, LEAST_CORNER * len(values)) for values in (grid.columns, grid.rows))
        corner = Rectangle(
            (column - width / 2, row - height / 2), width, height, fill=False, edgecolor=INK, linewidth=2.4,
            linestyle=CORNER_LINES[name], clip_on=False, zorder=5, label=name,
        )  # fmt: skip
        ax.add_patch(corner)


def _label(ax: Axes, run: Run, grid: Grid, width: float) -> None:
    """Labels rows and columns by their values, evenly spaced whatever the values are."""
    names = axis_names(run)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    rows, columns = evenly_spread(grid.rows, MOST_TICKS), evenly_spread(grid.columns, MOST_TICKS)
    ax.set_yticks([grid.rows.index(each) for each in rows], [format_value(each) for each in rows])
    set_x_ticks(ax, columns, width, [grid.columns.index(each) for each in columns])
    upright: dict[str, Any] = {"rotation": 0, "ha": "right", "va": "center", "labelpad": 8}
    ax.set_ylabel(names[grid.row], **(upright if len(names[grid.row]) == 1 else {}))
    ax.set_xlabel(names[grid.column])


def _legend_handles(grid: Grid, states: list[str]) -> dict[str, Patch]:
    corners = {
        f"{name} (λ = {format_value(lam)}, σ = {format_value(sigma)})": Patch(
            facecolor="none", edgecolor=INK, linewidth=2, linestyle=CORNER_LINES[name]
        )
        for name, (lam, sigma) in grid.corners.items()
    }
    return corners | {STATE_NAMES.get(state, state): Patch(**hatch_style(state, 1)) for state in states}


def _caption(run: Run, grid: Grid, quantity: Quantity, states: dict[str, bool], outliers: bool, panels: int) -> str:
    names, settings = axis_names(run), grid.settings
    most = int(settings["seeds"].max())
    mean = "one seed" if most == 1 else f"mean over up to {most} seeds that reached the last round"
    description = capitalized(quantity.description)
    text = f"{description}, for each {names[grid.row]} (rows) and {names[grid.column]} (columns): {mean}."
    corners = [
        f"{name} (λ = {format_value(lam)}, σ = {format_value(sigma)}; "
        f"{'full' if name == 'random init' else 'dashed'} line)"
        for name, (lam, sigma) in grid.corners.items()
    ]
    if corners:
        text += f" Framed: {join_words(corners)}."
    counts = settings["state"].value_counts()
    without = [f"{counts[state]} {STATE_NAMES[state]}" for state in HATCHES if state in counts]
    if without:
        text += f" Hatched, without a number: settings of which no seed reached the last round ({join_words(without)})."
    if "missing" in states:
        text += " Dashed and empty: not run yet, or failed with an error."
    if SOME_FAILED in states:
        text += " A thin hatch over the colour: some seeds gave up or diverged; the number is the mean of the others."
    if outliers:
        text += " The colours leave outliers out: a value beyond an end of the colour bar has the colour of that end."
    left_empty = int((settings[quantity.column].notna() & ~settings.index.isin(quantity.rows.index)).sum())
    if left_empty:
        text += f" {left_empty} settings that were timed otherwise are left empty."
    if max(len(grid.rows), len(grid.columns)) > MOST_NUMBERS:
        text += " The numbers are in summary.csv."
    return text + cut_note(min(panels, MOST_PANELS), panels) + scale_note(run, panels)
