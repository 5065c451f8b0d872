"""Draws the figures that a scenario asks for in `figures:`, and says which of them cannot be drawn, and why."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as Drawing
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from pydantic import ValidationError

from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.registry import ANALYSES
from warmstart_sim.report.axis_plots import plot_against
from warmstart_sim.report.column_curves import plot_curves
from warmstart_sim.report.comparisons import with_columns_of_arms, without_failed
from warmstart_sim.report.grid_curves import grid_curves
from warmstart_sim.report.grids import grid_over
from warmstart_sim.report.heatmaps import plot_heatmap
from warmstart_sim.report.scatter import plot_scatter
from warmstart_sim.report.style import ReportFigure, styled
from warmstart_sim.report.wording import capitalized
from warmstart_sim.results.columns import column_of
from warmstart_sim.results.figure_settings import FIGURES, Against, Curves, Figure, GridCurves, Heatmap, Scatter
from warmstart_sim.results.selection import tuned_columns
from warmstart_sim.results.tables import Run, comparable


def scenario_figures(run: Run, published: pd.DataFrame | None = None) -> list[ReportFigure]:
    """The figures of a scenario's `figures:`, in its order; one that cannot be drawn is a card that says why.

    A figure that names a key which `select` tunes is about all settings, the others about those that were selected.

    Args:
        run: The run.
        published: See `published_points`.
    """
    return [
        figure
        for index, raw in enumerate(run.scenario.get("figures") or ())
        for figure in _figures(run, raw, f"figure_{index + 1}", published)
    ]


def analysis_figures(run: Run) -> list[ReportFigure]:
    """The figure with which each analysis is registered, if its table is there and no figure of the scenario draws it.

    The registry holds names and settings only; nothing of it imports torch.
    """
    drawn_already = {raw.get("table") for raw in run.scenario.get("figures") or ()}
    return [
        figure
        for name in ANALYSES.names()
        if (raw := ANALYSES.details(name).get("figure")) and name not in drawn_already
        if (run.folder / f"{name}.csv").exists()
        for figure in _figures(run, {**raw, "table": name}, name, None)
    ]


def _figures(run: Run, raw: Mapping[str, Any], name: str, published: pd.DataFrame | None) -> list[ReportFigure]:
    """Draws what an item of `figures:` asks for: one figure or several under this name, or a card."""
    title = str(raw.get("title") or capitalized(str(raw.get("kind", "figure"))))
    try:
        settings = FIGURES[raw["kind"]].model_validate(raw)
        drawn = _draw(run.every if run.every and _names_tuned(run, settings) else run, settings, published)
        if not drawn:
            raise WarmstartError("there is nothing to draw yet")
    except (WarmstartError, ValidationError, KeyError) as error:
        drawn = [_card(title, f"Not drawn: {' '.join(str(error).split())}.")]
    return [
        replace(
            figure,
            name=name + (f"_{number + 1}" if len(drawn) > 1 else ""),
            title=raw.get("title") or figure.title,
            caption=f"{raw.get('caption', '')} {figure.caption}".strip(),
        )
        for number, figure in enumerate(drawn)
    ]


def _names_tuned(run: Run, settings: Figure) -> bool:
    named = {
        column_of(name, run.scenario["strategies"])
        for _, name in settings.names((*settings.measured, *settings.grouped))
    }
    return not named.isdisjoint(tuned_columns(run.scenario))


def _draw(run: Run, settings: Figure, published: pd.DataFrame | None) -> Sequence[ReportFigure]:
    """Draws one figure; an empty list if there are no values. Only figures of grids show failed cells."""
    if isinstance(settings, Scatter):
        run = with_columns_of_arms(run, [settings.x, settings.y])
    run = _where(run, settings)
    _check_columns(run, settings)
    of_analysis = getattr(settings, "table", None) is not None
    sound, note = (run, "") if of_analysis else without_failed(run)
    match settings:
        case Heatmap():
            return plot_heatmap(run, settings)
        case GridCurves():
            rows, columns = (column_of(key, run.scenario["strategies"]) for key in (settings.rows, settings.columns))
            drawn = grid_curves(run, grid_over(run, rows, columns), settings.y)
            return [drawn] if drawn else []
        case Curves():
            drawn = plot_curves(sound, settings, published)
        case Against():
            drawn = plot_against(sound, settings, published)
        case Scatter():
            drawn = plot_scatter(sound, settings)
    return [drawn.with_note(note) if note else drawn] if drawn else []


def _where(run: Run, settings: Figure) -> Run:
    """The run with only the rows of `where`; rows without a value of a key are kept."""
    rounds, epochs = run.rounds, run.epochs
    for key, values in settings.where.items():
        column = column_of(key, run.scenario["strategies"])
        rounds, epochs = (_rows_with(table, column, values) for table in (rounds, epochs))
    return replace(run, rounds=rounds, epochs=epochs)


def _rows_with(table: pd.DataFrame, column: str, values: Any) -> pd.DataFrame:
    if column not in table:
        return table
    allowed = {comparable(value) for value in (values if isinstance(values, tuple) else (values,))}
    return table[table[column].astype(object).map(comparable).isin([None, *allowed])]


def _check_columns(run: Run, settings: Figure) -> None:
    """Checks that the table of a figure has the columns that it names.

    Raises:
        WarmstartError: A column is missing, or has no numbers where they are needed.
    """
    by_epoch = isinstance(settings, Curves) and settings.x == "epoch"
    source = getattr(settings, "table", None)
    table = run.analysis(source) if source else run.epochs if by_epoch else run.rounds
    source = source or ("epochs" if by_epoch else "rounds")
    numbers = [name for name in map(str, table) if is_numeric_dtype(table[name]) and not is_bool_dtype(table[name])]
    numbers += [] if by_epoch else ["difference"]
    if isinstance(settings, Against) and settings.starred:
        numbers += [settings.starred] if any(fnmatchcase(name, settings.starred) for name in numbers) else []
    for keys, valid in ((settings.measured, numbers), (settings.grouped, [*table, "y"])):
        for key, named in settings.names(keys):
            if column_of(named, run.scenario["strategies"]) not in valid:
                with_values = [str(name) for name in valid if name not in table or table[name].notna().any()]
                raise WarmstartError(f"{key}: {unknown(f'column of {source}.csv', named, with_values)}")


@styled
def _card(title: str, reason: str) -> ReportFigure:
    """A figure that says why there is none."""
    drawing = Drawing(figsize=(6.2, 1.2))
    drawing.text(0.01, 0.5, textwrap.fill(textwrap.shorten(reason, 220), 80), va="center", size=10)
    return ReportFigure("card", title, reason, drawing)
