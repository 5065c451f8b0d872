"""Columns that probes added are drawn without further code, with the means of the tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_runs import write_run

from warmstart_sim.report import html, style
from warmstart_sim.report.figures import draw_figures
from warmstart_sim.report.probe_plots import SECTION, plot_probes
from warmstart_sim.report.style import ReportFigure
from warmstart_sim.results.tables import load

COLUMNS = {
    "weight_norm_layer1": {"probe": "weight_norm", "unit": "L2 norm"},
    "weight_norm_layer2": {"probe": "weight_norm", "unit": "L2 norm"},
    "gradient_norm_ratio": {"probe": "gradient_norm", "unit": ""},
}


def write_probed(folder: Path, every: int = 1, **options: Any) -> Path:
    """A made-up run in which probes measured both tables, the epochs every `every` epochs."""
    write_run(folder, **{"seeds": 3, **options})
    rng = np.random.default_rng(2)
    for name in ("rounds", "epochs"):
        table = pd.read_csv(folder / f"{name}.csv")
        for column in COLUMNS:
            table[column] = rng.uniform(1, 2, len(table)) + table["seed"]
            if name == "epochs":
                table[column] = table[column].where((table["epoch"] - 1) % every == 0)
        table.assign(probe_seconds=0.1, note="text").to_csv(folder / f"{name}.csv", index=False)
    (folder / "columns.json").write_text(json.dumps(COLUMNS))
    return folder


def probe_figures(folder: Path) -> dict[str, ReportFigure]:
    figures = plot_probes(load(folder))
    assert {figure.section for figure in figures} <= {SECTION}
    return {figure.name: figure for figure in figures}


def lines(figure: ReportFigure, panel: int, colour: str) -> list[Any]:
    return [line for line in figure.figure.axes[panel].lines if line.get_color() == colour and len(line.get_xdata())]


def test_probe_columns_are_the_numbers_that_are_not_in_every_table(tmp_path: Path):
    run = load(write_probed(tmp_path, vary={"strategies.shrink_perturb.lambda": [1, 0.6]}))
    assert run.probe_columns("rounds") == run.probe_columns("epochs") == list(COLUMNS)
    assert run.column_info("weight_norm_layer1_at_start") == COLUMNS["weight_norm_layer1"]
    assert run.column_info("unknown") == {}


def test_a_run_without_probes_has_no_such_columns(tmp_path: Path):
    run = load(write_run(tmp_path))
    assert (run.probe_columns("rounds"), run.probe_columns("epochs"), run.columns) == ([], [], {})
    assert probe_figures(tmp_path) == {}


def test_the_columns_of_a_probe_are_panels_with_means_over_seeds(tmp_path: Path):
    found = probe_figures(write_probed(tmp_path))
    assert list(found) == [
        f"probe_{name}_by_{by}" for by in ("round", "epoch") for name in ("weight_norm", "gradient_norm")
    ]
    figure = found["probe_weight_norm_by_round"]
    titles = [ax.get_title(loc="left") for ax in figure.figure.axes]
    assert titles == ["weight norm layer1", "weight norm layer2"]
    assert figure.figure.axes[0].get_ylabel() == "weight norm layer1 (L2 norm)"
    rounds = pd.read_csv(tmp_path / "rounds.csv").query("strategy == 'warm_start'").groupby("train_samples")
    for panel, column in enumerate(("weight_norm_layer1", "weight_norm_layer2")):
        (line,) = lines(figure, panel, style.PALETTE[0])
        np.testing.assert_allclose(line.get_ydata(), rounds[column].mean())
    assert found["probe_gradient_norm_by_round"].figure.axes[0].get_ylabel() == "gradient norm ratio"
    assert "Mean over 3 seeds" in figure.caption
    assert "3 of 6 rounds are drawn, evenly spread." in found["probe_weight_norm_by_epoch"].caption


@pytest.mark.parametrize("every", [1, 4])
def test_epochs_are_drawn_where_they_were_measured(tmp_path: Path, every: int):
    found = probe_figures(write_probed(tmp_path, every=every, stream="static", seeds=1))
    epochs = (
        pd.read_csv(tmp_path / "epochs.csv").query("strategy == 'random_init'").dropna(subset="gradient_norm_ratio")
    )
    mean, _ = lines(found["probe_gradient_norm_by_epoch"], 0, style.INK)
    np.testing.assert_allclose(mean.get_xdata(), epochs["epoch"])
    np.testing.assert_allclose(mean.get_ydata(), epochs["gradient_norm_ratio"])


def test_one_or_two_rounds_are_points_side_by_side(tmp_path: Path):
    figure = probe_figures(write_probed(tmp_path, stream="split"))["probe_gradient_norm_by_round"]
    rounds = pd.read_csv(tmp_path / "rounds.csv").query("strategy == 'warm_start'").groupby("round")
    (line,) = lines(figure, 0, style.PALETTE[0])
    np.testing.assert_allclose(line.get_ydata(orig=False), rounds["gradient_norm_ratio"].mean())
    drawn = [
        line.get_xdata(orig=False)[0] for colour in (style.INK, *style.PALETTE[:2]) for line in lines(figure, 0, colour)
    ]
    assert len(set(drawn)) == 3


def test_with_several_panels_each_column_has_a_figure(tmp_path: Path):
    found = probe_figures(write_probed(tmp_path, vary={"data.name": ["cifar10", "svhn"]}))
    assert set(found) == {f"probe_{column}_by_{by}" for column in COLUMNS for by in ("round", "epoch")}
    axs = found["probe_weight_norm_layer1_by_round"].figure.axes
    assert [ax.get_title(loc="left") for ax in axs] == ["data = cifar10", "data = svhn"]
    assert axs[0].get_ylabel() == "weight norm layer1 (L2 norm)"


@pytest.mark.parametrize("stream", ["online", "pretrain"])
def test_the_page_has_a_section_on_probes(tmp_path: Path, stream: str):
    run = load(write_probed(tmp_path, stream=stream))
    figures = draw_figures(run)
    text = html.render_page(run, run.summary(), figures, {figure.name: style.to_svg(figure) for figure in figures})
    assert text.index("<h2>Figures</h2>") < text.index(f"<h2>{SECTION}</h2>") < text.index("<h2>How it was made")
    assert "figures/probe_weight_norm_by_round.svg" in text


def test_units_are_left_out_where_none_were_recorded(tmp_path: Path):
    write_probed(tmp_path)
    (tmp_path / "columns.json").unlink()
    found = probe_figures(tmp_path)
    assert found["probe_weight_norm_layer1_by_round"].figure.axes[0].get_ylabel() == "weight norm layer1"
