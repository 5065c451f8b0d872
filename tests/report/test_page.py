"""The page stands alone, says the important things, and everything is written whole."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fake_runs import ARMS, write_run
from rich.console import Console

from warmstart_sim import report
from warmstart_sim.errors import WarmstartError
from warmstart_sim.report import html, style
from warmstart_sim.report.figures import draw_figures
from warmstart_sim.report.findings import describe_run
from warmstart_sim.report.terminal import terminal_table
from warmstart_sim.report.wording import duration
from warmstart_sim.results.tables import load

pytestmark = pytest.mark.xdist_group("page")  # its fixtures are made in one process

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Balance(HTMLParser):
    """Collects ids and references, and checks that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value for key, value in attributes if key == "id"]
        self.references += [value for key, value in attributes if key in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag: str, attributes: Any) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page(folder: Path, drawn: bool = False, **options: Any) -> tuple[str, Balance]:
    """The page of a made-up run, without what `write` leaves beside it, and without its figures unless `drawn`."""
    run = load(write_run(folder, **{"seeds": 3, **options}))
    figures = draw_figures(run) if drawn else []
    text = html.render_page(run, run.summary(), figures, {figure.name: style.to_svg(figure) for figure in figures})
    parsed = Balance()
    parsed.feed(text)
    assert parsed.open == []
    return text, parsed


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Balance]:
    """The page of a run with a varied lambda."""
    vary = {"strategies.shrink_perturb.lambda": [1, 0.6, 0]}
    return page(tmp_path_factory.mktemp("online"), drawn=True, vary=vary)


def test_the_page_is_well_formed_and_stands_alone(online: tuple[str, Balance]):
    text, parsed = online
    assert len(parsed.ids) == len(set(parsed.ids))
    inside = {reference[1:] for reference in parsed.references if reference.startswith("#")}
    assert inside <= set(parsed.ids)
    assert not [reference for reference in parsed.references if ":" in reference]  # nothing from elsewhere
    assert "<script" not in text
    assert "color-scheme: light dark" in text
    assert len(text) < 300_000


def test_the_finding_comes_first_and_the_rest_is_there(tmp_path: Path):
    text, parsed = page(tmp_path, drawn=True, stream="split")
    assert all(text in parsed.text for text in describe_run(load(tmp_path)))
    assert text.index("points below") < text.index("<h2>Summary</h2>") < text.index("<svg")
    for content in (
        "warmstart-sim run fake_split",
        "noisy_digits",
        "an <AMD> core & more",
        "Every round",
        "t-interval",
    ):
        assert content in parsed.text
    assert "first phase" in parsed.text
    assert "Missing or failed" not in parsed.text
    assert "REHEARSAL" not in text


def test_every_colour_of_the_figures_is_defined_for_light_and_dark(online: tuple[str, Balance]):
    text, _ = online
    used = set(re.findall(r"var\((--c[0-9a-f]{6})\)", text))
    assert len(used) > 5
    assert used == set(re.findall(r"(--c[0-9a-f]{6}): light-dark\(#[0-9a-f]{6}, #[0-9a-f]{6}\);", text))


def test_a_rehearsal_says_so_at_the_top(tmp_path: Path):
    text, _ = page(tmp_path, stream="static", rehearsal=True)
    assert text.index("REHEARSAL: synthetic data, reduced size") < text.index('class="finding"')


def test_a_partial_run_says_what_is_missing(tmp_path: Path):
    _, parsed = page(
        tmp_path, stream="static", leave_out=lambda cell: cell["strategy"] == "warm_start" and cell["seed"] > 1
    )
    assert "warm start, seed 2: missing" in parsed.text


def test_a_long_list_of_missing_cells_is_cut(tmp_path: Path):
    _, parsed = page(tmp_path, stream="static", seeds=30, leave_out=lambda cell: cell["seed"] > 0)
    assert "and 47 more" in parsed.text


def test_a_run_with_nothing_finished_has_a_page(tmp_path: Path):
    _, parsed = page(tmp_path, drawn=True, stream="static", leave_out=lambda cell: True)
    assert "No cell has reached its last round" in parsed.text


def test_with_one_round_of_its_own_an_arm_has_no_mean_over_rounds(tmp_path: Path):
    _, parsed = page(tmp_path, stream="static")
    assert "mean over rounds" not in parsed.text
    assert "first phase" not in parsed.text


def row_of(table: html.Table, *keys: str) -> dict[str, str]:
    (found,) = (row for row in table.rows if row[: len(keys)] == list(keys))
    return dict(zip(table.head, found, strict=True))


IN_WORDS = {
    "isolated": "Train seconds were timed alone on the device.",
    "estimated": "Train seconds were estimated from the step time measured on the idle device.",
    "concurrent": "Train seconds were timed beside other cells.",
}


@pytest.mark.parametrize("kind", IN_WORDS)
def test_the_page_says_of_which_kind_its_seconds_are(tmp_path: Path, kind: str):
    measured = "isolated" if kind == "isolated" else "concurrent"
    options = {"timing": lambda cell: measured, "estimated": lambda cell: kind == "estimated"}
    _, parsed = page(tmp_path, stream="split", **options)
    below_summary, below_rounds = parsed.text.split("Every round")
    for part in (below_summary, below_rounds):
        assert [words for words in IN_WORDS.values() if words in part] == [IN_WORDS[kind]]
    assert "Those of the first phase" not in parsed.text
    assert ("The column train_seconds of summary.csv has" in parsed.text) == (kind == "estimated")
    run = load(tmp_path)
    rounds = pd.read_csv(tmp_path / "rounds.csv").query("strategy == 'warm_start'").groupby("round")
    means = rounds["estimated_isolated_seconds" if kind == "estimated" else "train_seconds"].mean()
    row = row_of(html.summary_table(run.summary(), run), "warm start")
    assert (row["first phase"], row["train time"]) == (duration(means[0]), duration(means[1]))
    assert "timing" not in row
    assert row_of(html.rounds_table(run), "warm start", "1")["train time"] == duration(means[1])


def test_a_first_phase_timed_otherwise_is_named_apart(tmp_path: Path):
    _, parsed = page(tmp_path, stream="split", timing=lambda cell: "concurrent" if cell["round"] else "isolated")
    text = "Train seconds were timed beside other cells. Those of the first phase were timed alone on the device."
    assert text in parsed.text


def test_seconds_of_several_kinds_are_named_row_by_row(tmp_path: Path):
    _, parsed = page(
        tmp_path,
        timing=lambda cell: "isolated" if cell["strategy"] == "random_init" else "concurrent",
        estimated=lambda cell: cell["strategy"] == "warm_start" or cell["seed"] == 0,
    )
    run = load(tmp_path)
    summary, rounds = html.summary_table(run.summary(), run), html.rounds_table(run)
    for arm, kind in (("random init", "isolated"), ("warm start", "estimated"), ("shrink perturb", "mixed")):
        assert row_of(summary, arm)["timing"] == row_of(rounds, arm, "3")["timing"] == kind
    several = (
        "Train seconds are of several kinds, which cannot be compared; see the column timing (isolated: timed alone"
    )
    for part in parsed.text.split("Every round"):
        assert several in part
        assert "mixed: of several kinds)" in part
    differences = html.differences_table(run.summary(), run)
    assert row_of(differences, "warm start")["train time (ratio)"] == "–"
    assert "training time" not in parsed.text


def test_a_run_from_before_estimates_has_the_same_report(tmp_path: Path):
    write_run(tmp_path, seeds=2)
    page_file = report.write(tmp_path)
    before = page_file.read_text(encoding="utf-8")
    rounds = pd.read_csv(tmp_path / "rounds.csv")
    rounds.drop(columns="estimated_isolated_seconds").to_csv(tmp_path / "rounds.csv", index=False)
    assert report.write(tmp_path).read_text(encoding="utf-8") == before


def test_what_users_wrote_is_escaped(tmp_path: Path):
    arms = {**ARMS, "<script>alert(1)</script>": {"start": "warm_start"}}
    text, _ = page(tmp_path, drawn=True, stream="static", seeds=2, arms=arms)
    assert "<script>alert" not in text


def test_write_leaves_whole_files_only_and_the_same_the_second_time(tmp_path: Path):
    write_run(tmp_path, stream="split", seeds=2)
    found = []
    for _ in range(2):
        assert report.write(tmp_path) == tmp_path / "report.html"
        found.append({path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()})
    assert found[0] == found[1]
    figures = {f"figures/{name}.{kind}" for name in ("accuracy_by_epoch", "paired_differences", "tradeoff")
               for kind in ("svg", "png")}  # fmt: skip
    tables = {"scenario.yaml", "environment.json", "rounds.csv", "epochs.csv"}
    assert {str(path) for path in found[0]} == tables | figures | {"summary.csv", "report.html"}
    links = set(re.findall(r'href="([^"#]+)"', found[0][Path("report.html")].decode()))
    assert links == figures | {"summary.csv", "rounds.csv", "epochs.csv"}


def test_a_folder_without_a_run_ends_in_one_line(tmp_path: Path):
    with pytest.raises(WarmstartError, match="holds no run"):
        report.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_report_never_imports_torch_and_says_nothing(tmp_path: Path):
    write_run(tmp_path / "run", stream="split", seeds=2)
    code = (
        "import sys, pathlib; from warmstart_sim import report; import warmstart_sim.report.terminal;"
        "report.write(pathlib.Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    # A new folder for matplotlib's font cache: on a new machine it would talk while it builds one.
    environment = {"PATH": "", "MPLCONFIGDIR": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "run")],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "options",
    [{}, {"vary": {"strategies.shrink_perturb.lambda": [1, 0.6, 0]}}, {"seeds": 1}, {"rehearsal": True}],
    ids=["online", "lambda", "one seed", "rehearsal"],
)
def test_the_terminal_s_table_fits_in_100_columns(tmp_path: Path, options: dict[str, Any]):
    console = Console(width=100, file=io.StringIO())
    console.print(terminal_table(load(write_run(tmp_path, **options))))
    text = console.file.getvalue()
    assert "shrink perturb" in text  # on one line, so nothing was squeezed
    assert "…" not in text
    assert ("REHEARSAL" in text) == bool(options.get("rehearsal"))
    if not options:
        assert "train times: timed beside other cells" in text
        assert re.search(r"warm start +5 +64\.\d ± \d\.\d +−8\.\d \[−9\.\d, −\d\.\d\] +\d\.\d s +0\.2\d +\d+", text)


@pytest.mark.parametrize(
    ("estimated", "line"),
    [
        (lambda cell: True, "train times: estimated from the step time measured on the idle device"),
        (lambda cell: cell["seed"] == 0, "train times: of several kinds, not comparable; see the column timing in"),
    ],
    ids=["all", "some"],
)
def test_the_terminal_s_table_says_of_which_kind_its_seconds_are(tmp_path: Path, estimated: Any, line: str):
    console = Console(width=100, file=io.StringIO())
    console.print(terminal_table(load(write_run(tmp_path, seeds=2, estimated=estimated))))
    assert line in console.file.getvalue()
