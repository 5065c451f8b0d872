"""Renders report.html: one self-contained page with all figures, readable on phones and on dark screens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from warmstart_sim.report.analysis_tables import tables_without_figure
from warmstart_sim.report.beside_papers import (
    claims_table,
    comparison_table,
    describe_changes,
    describe_comparison,
)
from warmstart_sim.report.figures import REHEARSAL
from warmstart_sim.report.findings import describe_run, missing_or_failed
from warmstart_sim.report.recommendation import MARGIN
from warmstart_sim.report.style import ReportFigure, color_variables, inline_svg
from warmstart_sim.report.timing import TIMING_IN_FULL
from warmstart_sim.report.wording import (
    Table,
    axis_names,
    duration,
    format_value,
    is_empty,
    join_words,
    p_value,
    percent,
    points,
    ratio,
    readable,
)
from warmstart_sim.results.claim_checks import CheckedClaim
from warmstart_sim.results.files import to_yaml
from warmstart_sim.results.statistics import counted_seconds, most_accurate, over_seeds, timing_kinds
from warmstart_sim.results.tables import Run

MOST_ROWS = 200  # of the summary and of the differences
MOST_ROUND_ROWS = 600
MOST_MISSING = 40
MOST_NOTES = 20


def render_page(
    run: Run,
    summary: pd.DataFrame,
    figures: Sequence[ReportFigure],
    svgs: Mapping[str, str],
    margin: float = MARGIN,
    comparison: pd.DataFrame | None = None,
    claims: Sequence[CheckedClaim] = (),
) -> str:
    """Renders report.html.

    Args:
        run: The run to report.
        summary: From `statistics.summary`.
        figures: From `figures.draw_figures`.
        svgs: The SVG file of each figure, by its name.
        margin: The loss of accuracy that does not matter, as a fraction.
        comparison: From `published.compare.compare_with_papers`; None if the run reproduces nothing with numbers.
        claims: From `results.claims.check_claims`.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(files(__package__).joinpath("template.html.j2").read_text(encoding="utf-8"))
    sections: dict[str, list[tuple[ReportFigure, Markup]]] = {}
    for figure in figures:
        label = escape(f"{figure.title}. {figure.caption}")
        inline = Markup(inline_svg(svgs[figure.name], figure.name, label))
        sections.setdefault(figure.section, []).append((figure, inline))
    lines = missing_or_failed(run)
    shown = most_accurate(summary, run.reference, MOST_ROWS)
    return template.render(
        title=run.scenario.get("title") or readable(run.scenario["name"]),
        scenario=run.scenario,
        reference=readable(run.reference),
        rehearsal=REHEARSAL if run.environment.get("rehearsal") else "",
        advice=run.environment.get("advice") or {"answer": [], "code": ""},
        findings=[text for text in describe_run(run, summary, margin) if text],
        timing=_timing(summary),
        summary=summary_table(shown, run),
        differences=differences_table(shown, run),
        left_out=len(summary) - len(shown),
        rounds=rounds_table(run),
        rounds_timing=_kinds("Train seconds", counted_seconds(run.rounds)["timing"]),
        tables=list(run.files.values()),
        several_data_sets=has_several_data_sets(run),
        has_first_phase=bool(run.rounds["shared"].any()),
        pretrained=run.pretrained,
        sections=sections,
        color_variables=Markup(color_variables([svgs[figure.name] for figure in figures])),
        reproduces=join_words(list(run.scenario.get("reproduces") or [""])),
        beside=None if comparison is None else comparison_table(comparison),
        beside_counts="" if comparison is None else describe_comparison(comparison),
        claims=claims_table(claims),
        selection=selection_table(run),
        changes=describe_changes(run.environment.get("changes_from_paper") or ()),
        missing=lines[:MOST_MISSING],
        more_missing=max(0, len(lines) - MOST_MISSING),
        resolved=to_yaml(dict(run.scenario)),
        analyses=[(readable(name), f"{name}.csv", *found) for name, *found in tables_without_figure(run, MOST_ROWS)],
        notes=run.environment.get("notes") or [],
        most_notes=MOST_NOTES,
        environment={  # without what stands elsewhere on the page
            key: "–" if is_empty(entry) else entry
            for key, entry in run.environment.items()
            if key not in ("notes", "changes_from_paper", "advice")
        },
    )


def _timing(summary: pd.DataFrame) -> str:
    """Sentences on how the seconds of the summary were found."""
    own, first = summary["timing"], summary["first_phase_timing"]
    sentences = [_kinds("Train seconds", own)]
    if (first.notna() & (first != own)).any():
        sentences.append(_kinds("Those of the first phase", first, "first_phase_timing in summary.csv"))
    if (own == "estimated").any():
        sentences.append("The column train_seconds of summary.csv has the seconds measured beside other cells.")
    return " ".join(sentences)


def _kinds(what: str, timing: pd.Series[str], where: str = "the column timing") -> str:
    """A sentence on how the seconds `what` were found; `where` gives each row's kind if there are several."""
    found = {kind: words for kind, words in TIMING_IN_FULL.items() if (timing == kind).any()}
    if not _several(timing):
        return "".join(f"{what} were {words}." for words in found.values())  # one kind, or none
    kinds = "; ".join(f"{kind}: {words}" for kind, words in {**found, "mixed": "of several kinds"}.items())
    return f"{what} are of several kinds, which cannot be compared; see {where} ({kinds})."


def _timing_column(timing: pd.Series[str]) -> list[list[str]]:
    """The kind of seconds of each row; empty lists if there is only one kind."""
    several = _several(timing)
    return [["–" if is_empty(kind) else kind] if several else [] for kind in timing]


def _several(timing: pd.Series[str]) -> bool:
    return bool(timing.nunique() > 1 or (timing == "mixed").any())


def summary_table(summary: pd.DataFrame, run: Run) -> Table:
    """Accuracy and cost of each arm, as text."""
    curve, first_phase = _has_curve(summary), bool(summary["first_phase_seconds"].notna().any())
    head = ["seeds", f"final {readable(run.metric)} (95\N{NO-BREAK SPACE}%)", *["mean over rounds"] * curve]
    timing = _timing_column(summary["timing"])
    head += ["train time", *["timing"] * any(timing), "train and checks, as measured", "epochs", "converged"]
    head += ["first phase"] * first_phase
    rows = [
        [
            str(row["seeds"]),
            _with_interval(row, "final_accuracy"),
            *[percent(row["curve_accuracy"])] * curve,
            duration(row["compared_seconds"]),
            *kind,
            duration(row["train_seconds"] + row["criterion_seconds"]),
            _whole(row["epochs"]),
            percent(row["converged_share"], digits=0),
            *[duration(row["first_phase_seconds"])] * first_phase,
        ]
        for row, kind in zip(summary.to_dict("records"), timing, strict=True)
    ]
    return _with_keys(summary, run, head, rows)


def differences_table(summary: pd.DataFrame, run: Run) -> Table:
    """Paired differences from the reference, as text; no rows if there is nothing to compare."""
    compared = summary[summary["difference"].notna()]
    curve = _has_curve(summary)
    head = ["pairs", "final accuracy (points)", "p", "p (Holm)", *["mean over rounds (points)"] * curve]
    head += ["train time (ratio)", "samples (ratio)"]
    rows = [
        [
            str(row["pairs"]),
            points(row["difference"], row["difference_low"], row["difference_high"]),
            p_value(row["difference_p"]),
            p_value(row["difference_p_holm"]),
            *[points(row["curve_difference"], row["curve_difference_low"], row["curve_difference_high"])] * curve,
            ratio(row["time_ratio"], row["time_ratio_low"], row["time_ratio_high"]),
            ratio(row["samples_ratio"]),
        ]
        for row in compared.to_dict("records")
    ]
    return _with_keys(compared, run, head, rows)


def selection_table(run: Run) -> Table:
    """The settings among which `select` chooses for each arm, as text; no rows without `select`."""
    if run.every is None or run.candidates is None:
        return Table([], [], 0)
    by = run.scenario["select"]["by"]
    shown = run.candidates.head(MOST_ROWS)
    rows = [
        [str(row["seeds"]), str(row["failed"]), percent(row[by]), "chosen" if row["selected"] else ""]
        for row in shown.to_dict("records")
    ]
    return _with_keys(shown, run.every, ["seeds", "failed", f"final {readable(by)}", ""], rows)


def _has_curve(summary: pd.DataFrame) -> bool:
    """Whether the mean over rounds differs from the last round, because arms have several rounds of their own."""
    measured = summary.dropna(subset="final_accuracy")
    return bool((measured["curve_accuracy"] != measured["final_accuracy"]).any())


def rounds_table(run: Run) -> Table:
    """Every round of every arm, means over seeds, up to the number of rows that a page can hold."""
    of_data = ["dataset"] if has_several_data_sets(run) else []
    keys = ["strategy", *run.axes, *of_data, "round"]
    columns = ("train_samples", run.metric, "train_accuracy", "epochs", "compared_seconds", "converged")
    rounds = counted_seconds(run.rounds)
    table = over_seeds(rounds, keys, "train_samples")[[*keys, "seeds"]]
    for column in columns:
        table[column] = over_seeds(rounds, keys, column)["mean"]
    table["timing"] = timing_kinds(rounds, keys, "timing").to_numpy()
    table = table.sort_values(["strategy", *run.axes, "round"]).head(MOST_ROUND_ROWS)
    timing = _timing_column(table["timing"])
    head = ["round", "seeds", "samples", readable(run.metric), "train accuracy", "epochs", "train time"]
    head += [*["timing"] * any(timing), "converged"]
    rows = [
        [
            str(row["round"]),
            str(int(row["seeds"])),
            _whole(row["train_samples"]),
            percent(row[run.metric]),
            percent(row["train_accuracy"]),
            _whole(row["epochs"]),
            duration(row["compared_seconds"]),
            *kind,
            percent(row["converged"], digits=0),
        ]
        for row, kind in zip(table.to_dict("records"), timing, strict=True)
    ]
    return _with_keys(table, run, head, rows, of_data)


def has_several_data_sets(run: Run) -> bool:
    """Whether rounds differ in what they train on and are evaluated on."""
    return "dataset" in run.rounds and run.rounds["dataset"].nunique() > 1


def _with_keys(
    table: pd.DataFrame, run: Run, head: list[str], rows: list[list[str]], more: Sequence[str] = ()
) -> Table:
    """Adds the arm, its varied values and the columns `more` in front of the rows."""
    names = axis_names(run) | {"dataset": "data set"}
    columns = [*run.axes, *more]
    keys = [
        [
            readable(str(row["strategy"])),
            *("–" if is_empty(row[column]) else format_value(row[column]) for column in columns),
        ]
        for row in table.to_dict("records")
    ]
    first = ["strategy", *(names[column] or readable(column) for column in columns)]
    return Table(first + head, [key + row for key, row in zip(keys, rows, strict=True)], numbers=len(first))


def _with_interval(row: Mapping[Any, Any], column: str) -> str:
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    # With few seeds a t-interval can reach beyond 0 or 1.
    bounds = "" if is_empty(low) else f" [{100 * max(low, 0):.1f}, {100 * min(high, 1):.1f}]"
    return percent(row[column]) + bounds


def _whole(number: float) -> str:
    return "–" if is_empty(number) else f"{number:,.0f}"
