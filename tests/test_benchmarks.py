"""The benchmarks run, print their tables, and count and extrapolate correctly."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

import pytest
import torch

from warmstart_sim import scenario as scenarios
from warmstart_sim.results.store import RunFolder
from warmstart_sim.scenario.resolved import resolved_scenario

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a benchmark by its file's name, and removes all benchmarks from sys.modules after the test."""
    ours = [path.stem for path in BENCHMARKS.glob("*.py")]
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    for name in ours:
        sys.modules.pop(name, None)


def sections_of(document: str) -> dict[str, list[list[str]]]:
    """The rows under each heading."""
    sections = {}
    for section in document.split("\n## ")[1:]:
        rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
        sections[section.splitlines()[0]] = rows[2:]
    return sections


@pytest.mark.slow
@pytest.mark.xdist_group("pool")
@pytest.mark.filterwarnings("default")  # of the loops that ours are compared with
def test_speed_prints_a_row_for_the_model_in_every_table(tmp_path, benchmark, quick_workers, monkeypatch, capsys):
    out = tmp_path / "speed.md"
    model = "logistic_regression"
    speed, rates, many = map(benchmark, ("speed", "rates", "many"))
    monkeypatch.setattr(rates, "BLOCK_SECONDS", 0.01)
    monkeypatch.setattr(many, "CORE_SECONDS", 0.1)
    arguments = ["--models", model, "--steps", "1", "--repeats", "1", "--most", "2", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["speed.py", "--device", "cpu", *arguments])
    with pytest.raises(SystemExit) as ended:
        speed.main()
    output = capsys.readouterr().out
    sections = sections_of(output)
    assert ended.value.code == 0, output
    assert {title: [row[0] for row in rows] for title, rows in sections.items()} == {
        "One cell at a time": [model],
        "What bounds a step": [model],
        "Many cells at once": [f"{model}, 1x8x8"],
        "All cores": [f"{model}, 1x8x8", "a matrix product", "a copy in memory"],
    }
    _, samples_per_second, *ratios, share, turns = sections["One cell at a time"][0]
    assert turns == "1"
    assert len(ratios) == 5, "ours, in float32 and bf16, eager, DataLoader and Avalanche, over bare"
    assert all(float(number.split()[0].replace(",", "")) > 0 for number in (samples_per_second, *ratios))
    assert share.endswith("%")
    assert "(0.02 GFLOP)" in sections["What bounds a step"][0][2], "6 x 3,072 x 10 for each of 128 images"
    assert f"torch {torch.__version__.partition('+')[0]}" in output
    assert out.read_text() in output


def test_speed_lists_what_it_skipped_when_the_time_is_used_up(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["speed.py", "--device", "cpu", "--models", "mlp,bilstm", "--minutes", "0"])
    with pytest.raises(SystemExit) as ended:
        benchmark("speed").main()
    assert ended.value.code == 0
    output = capsys.readouterr().out
    assert not any(sections_of(output).values())
    for names in (
        "mlp, bilstm",
        "mlp, 1x8x8 (stacked), mlp, 3x32x32 (stacked)",
        "mlp, 1x8x8, mlp, 3x32x32, a matrix product, a copy in memory",
    ):
        assert f"\nSkipped, because the time was used up: {names}." in output


def test_a_piece_that_fails_is_reported_and_the_others_go_on(benchmark, capsys):
    document = benchmark("document")

    def fails(budget):
        yield ["half", "1"]
        raise RuntimeError("no luck\nmore words")

    pieces = {"bad": fails, "good": lambda budget: [["good", "2"]]}
    written = document.Document()
    written.add(document.Section("Title", "Note.", ["model", "value"], pieces), document.Budget(100, 2))
    assert capsys.readouterr().out == (
        "\n## Title\n\nNote.\n\n| model | value |\n| --- | --- |\n| half | 1 |\n| good | 2 |\n\n"
        "Failed: bad (RuntimeError: no luck).\n"
    )
    assert written.failures == ["bad (RuntimeError: no luck)"]


def test_pieces_share_the_remaining_time(benchmark, monkeypatch):
    document = benchmark("document")
    now = 0.0
    monkeypatch.setattr(document.time, "perf_counter", lambda: now)
    budget = document.Budget(90, pieces=3)
    assert budget.begin()
    now = 29
    assert not budget.over
    now = 30
    assert budget.over
    assert budget.begin()  # the second: half of the remaining 60 seconds
    now = 40
    assert budget.begin()  # the third: all remaining time, including the second's unused share
    now = 89
    assert not budget.over
    now = 90
    assert not budget.begin()


def test_traffic_counts_what_operators_read_and_write(benchmark):
    limits = benchmark("limits")
    left, right = torch.ones(8, 16), torch.ones(16, 4)  # 512 and 256 bytes
    table, index = torch.ones(1000, 16), torch.arange(3)
    mean, var = torch.zeros(16), torch.ones(16)

    def counted(work) -> tuple[int, int]:
        with limits.Traffic() as traffic:
            work()
        return traffic.launches, traffic.bytes

    assert counted(lambda: left @ right) == (1, 512 + 256 + 128)
    assert counted(lambda: left.T.view(2, 8, 8)[0].detach()) == (0, 0)
    assert counted(lambda: left.mul_(right[:, 0])) == (1, 512 + 64 + 512)
    assert counted(lambda: left.copy_(right[:, 0])) == (1, 64 + 512)
    assert counted(lambda: torch.zeros_like(left)) == (1, 512)
    assert counted(lambda: torch.exp(right[:, :1].expand(16, 4))) == (1, 64 + 256), (
        "a value that is repeated counts once"
    )
    assert counted(lambda: table.index_select(0, index)) == (1, 2 * 3 * 64), "it reads the rows that it gives"
    launches, moved = counted(lambda: torch.nn.functional.batch_norm(left, mean, var, training=True))
    assert launches == 1
    assert moved >= 2 * 512, "what it gives counts, though it changes the running statistics in place"


def test_traffic_counts_the_fused_optimiser_once_with_all_its_tensors(benchmark):
    limits = benchmark("limits")
    weight = torch.nn.Parameter(torch.ones(10, 10))  # 400 bytes
    optimizer = torch.optim.Adam([weight], fused=True)

    def step() -> None:
        weight.grad = torch.ones_like(weight)
        optimizer.step()

    counted = limits.traffic(step)
    # The update reads weight, gradient, two moments and the count of steps; by its schema it writes the first four.
    assert counted.launches == 3, "the gradient's ones, the count of steps, and the update"
    assert counted.bytes == 400 + (4 + 4) + (4 * 400 + 4 + 4 * 400)


def cifar10_run(path: Path) -> tuple[types.SimpleNamespace, RunFolder]:
    """A run of A-F2 with three arms, not trained yet."""
    raw = {
        "name": "job",
        "data": {"name": "cifar10", "validation_fraction": 0.3333},
        "stream": {"name": "online", "chunk_size": 1000},
        "model": {"name": "resnet18", "width": 16, "stem": "cifar"},
        "strategies": {
            "random_init": {},
            "shrink_perturb": {},
            "augmented": {"start": "warm_start", "augment": ["rotation"]},
        },
        "vary": {"strategies.shrink_perturb.sigma": [0.01, 0.0]},
        "seeds": [0],
    }
    scenario, cells = scenarios.plan(raw, "test")
    run = RunFolder(path)
    run.open(resolved_scenario(raw, scenario))
    return types.SimpleNamespace(**{f"{cell.arm.label}_{cell.varied['sigma']}": cell for cell in cells}), run


def row(index: int, epochs: int, train_seconds: float, timing: str = "isolated") -> dict:
    """A round with 1,000 new samples; criterion 2 seconds, evaluation 3 seconds."""
    return {
        "round": index, "train_samples": 1000 * (index + 1), "new_samples": 1000, "epochs": epochs,
        "train_seconds": train_seconds, "criterion_seconds": 2.0, "evaluation_seconds": 3.0, "timing": timing,
    }  # fmt: skip


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_job_is_extrapolated_from_the_completed_rounds(tmp_path, benchmark):
    jobs = benchmark("jobs")
    cells, run = cifar10_run(tmp_path)
    # Complete: three rounds, the whole job here.
    run.cell(cells.random_init_None.id).finish({}, [row(0, 4, 55.0), row(1, 4, 55.0), row(2, 4, 55.0)], [])
    # Unfinished: one round of three. Its rounds have 1,000, 2,000 and 3,000 samples.
    unfinished = {"weights": {}, "rounds": [row(0, 10, 98.0)], "epochs": [], "training": None, "columns": {}}
    run.cell(cells.__dict__["shrink_perturb_0.01"].id).save_checkpoint(unfinished)

    lines = list(jobs.document(tmp_path, rounds=3))
    found = {cells_of(line)[0]: cells_of(line)[1:] for line in lines if line.startswith("|")}
    # 3 x (55 + 2 + 3) seconds are 3 minutes; the paper's random init took 94.4.
    assert found["random_init"] == ["1", "3", "12", "3.00", "0.00", "3.00", "94.4", "31.5"]
    # Run: 98 + 2 + 3 = 103 s. One sample in one epoch takes (98 + 2) / (10 x 1,000) = 0.01 s, so the others take
    # 10 x 2,000 x 0.01 + 3 = 203 s and 10 x 3,000 x 0.01 + 3 = 303 s: 506 s.
    assert found["shrink_perturb sigma 0.01"] == ["1", "1", "10", "1.72", "8.43", "10.15", "57.7", "5.7"]
    assert found["2 published cells, one seed"] == ["", "", "", "4.72", "8.43", "13.15", "152.1", "11.6"]
    assert "Run: 4 of 6 rounds of 2 cells (seeds counted), 4.72 minutes." in lines[-2]
    assert "Extrapolated: 2 rounds, 8.43 minutes, 64% of the whole." in lines[-2]
    assert lines[-1] == "Left out: 2 cells that have not completed a round yet."


def test_missing_rounds_need_the_epochs_of_the_last_three_at_the_speed_of_the_last(benchmark):
    rows = [row(0, 90, 1000.0), row(1, 5, 100.0), row(2, 6, 100.0), row(3, 10, 78.0)]
    found = benchmark("jobs").estimate(rows, rounds=6)
    per_sample = (78 + 2) / (10 * 4000)
    assert found.extrapolated == pytest.approx((5 + 6 + 10) / 3 * (5000 + 6000) * per_sample + 2 * 3)
    assert (found.rounds, found.epochs, found.missing) == (4, 111, 2)


def test_concurrent_cells_count_with_their_share(benchmark):
    estimate = benchmark("jobs").estimate
    alone, beside = (estimate([row(0, 4, 55.0, timing)], 5, slots=4) for timing in ("isolated", "concurrent"))
    assert beside.run == alone.run / 4 == 15
    assert beside.extrapolated == alone.extrapolated / 4


def test_a_job_can_be_estimated_from_the_tables_alone(tmp_path, benchmark):
    cells, run = cifar10_run(tmp_path)
    cell = cells.__dict__["shrink_perturb_0.0"]
    run.cell(cell.id).finish({}, [row(0, 10, 98.0)], [])
    run.write_tables([(cell.id, {"scenario": "job", "strategy": "shrink_perturb", "seed": 0, **cell.varied})])
    run.describe({"workers": 1})
    jobs = benchmark("jobs")
    with_cells = list(jobs.document(tmp_path))
    (run.cell(cell.id).path / "result.json").unlink()
    assert list(jobs.document(tmp_path)) == with_cells
    assert any(line.startswith("| shrink_perturb sigma 0.0 | 1 | 1 |") for line in with_cells)


def test_only_the_papers_own_cells_have_published_minutes(tmp_path, benchmark):
    jobs = benchmark("jobs")
    cells, _ = cifar10_run(tmp_path)
    found = {name: jobs.published(cell) for name, cell in vars(cells).items()}
    assert found == {
        "random_init_None": 94.4, "shrink_perturb_0.01": 57.7, "shrink_perturb_0.0": 59.8, "augmented_None": None,
    }  # fmt: skip
    assert len(jobs.PUBLISHED) == 28
    assert sum(jobs.PUBLISHED.values()) == pytest.approx(1588, abs=1)
