"""The command line: what it prints, how it ends, and that a mistake is one line on stderr."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.execution.waiting import wait_for
from warmstart_sim import __version__, api, cli, registry
from warmstart_sim.execution import launch
from warmstart_sim.scenario import load, plan
from warmstart_sim.scenario.yaml_files import bundled_scenarios

COMMANDS = ["run", "grid", "report", "status", "advise", "analyze", "check", "list", "data", "schema"]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(tmp_path, monkeypatch, capsys) -> Callable[..., Ended]:
    """Runs `warmstart-sim ARGUMENTS` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["warmstart-sim", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return Ended(ended.value.code or 0, printed.out, printed.err)

    return run


@pytest.fixture
def scenario(tmp_path, tiny_scenario) -> Path:
    """A scenario file that takes seconds."""
    tiny_scenario["seeds"] = [0]
    tiny_scenario["stream"]["rounds"] = 2
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_scenario, sort_keys=False))
    return path


# What it says.


def test_without_a_command_it_helps(command):
    bare, helped = command(), command("--help")
    assert bare.code == helped.code == 0
    assert bare.out == helped.out
    for name in COMMANDS:
        assert f"\n  {name} " in helped.out
    assert "..." not in helped.out.partition("Commands:")[2]  # no summary is cut short


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps_and_can_show_tracebacks(command, name):
    helped = command(name, "--help")
    assert helped.code == 0
    assert "--traceback" in helped.out
    assert command(name, "-h").out == helped.out


def test_it_knows_its_version(command):
    assert command("--version").out == f"warmstart-sim {__version__}\n"


def test_list_has_a_line_for_everything(command):
    lines = command("list").out.splitlines()
    registries = (
        registry.STRATEGIES, registry.PARTS, registry.PROBES, registry.ANALYSES, registry.DATASETS,
        registry.STREAMS, registry.CHANGES, registry.MODELS,
    )  # fmt: skip
    named = [line.split()[0] for line in lines if line.startswith("  ")]
    assert sorted(named) == sorted([*(name for each in registries for name in each.names()), *bundled_scenarios()])
    assert [line for line in lines if line and not line.startswith(" ")] == [
        "Strategies", *(f"Parts of a strategy that change {what}" for what in cli.PARTS_CHANGE[:-1]),
        "Probes", "Analyses", "Data sets", "Models", "Streams", "Changes of a stream", "Scenario files",
    ]  # fmt: skip


def test_schema_prints_json(command):
    assert json.loads(command("schema").out)["title"] == "warmstart-sim scenario"


def test_check_says_how_much_work_it_is(command, scenario):
    # At most 6 epochs of 2 and of 4 batches (of 50 and of 100 samples) for three strategies.
    expected = (
        "valid; 3 cells (3 strategies, 1 seed), 6 rounds, at most 108 steps\n"
        "rounds of 50, 100 training samples, 50, 50 of them new; each has all samples of the round before\n"
    )
    assert command("check", scenario).out == f"{scenario}: {expected}"
    assert "1 cell (1 strategy, 1 seed), 2 rounds" in command("check", scenario, "--strategies", "warm_start").out
    assert "9 cells (3 strategies, 3 seeds)" in command("check", scenario, "--seeds", "3, 4,5").out
    assert "18 rounds" not in command("check", scenario, "--set", "stream.rounds=1").out
    window = command("check", scenario, "--set", "stream.changes={window: {last_samples: 75}}").out
    assert window.endswith("rounds of 50, 75 training samples, 50, 50 of them new; each has 50 % of the samples of the "
                           "round before\n")  # fmt: skip


def test_check_says_what_bf16_means_on_this_machine(command, scenario, monkeypatch):
    monkeypatch.setattr("warmstart_sim.execution.speed_notes.bf16_instructions", lambda: "AMX")
    line = "note: training.precision: bf16: the processor has AMX, so large layers are faster than in float32\n"
    assert command("check", scenario, "--set", "training.precision=bf16").out.endswith(line)


def test_check_resolved_prints_a_scenario_that_describes_the_same_cells(command, scenario, tmp_path):
    (tmp_path / "resolved.yaml").write_text(command("check", scenario, "--resolved").out)
    assert command("check", "resolved.yaml", "--resolved").out == (tmp_path / "resolved.yaml").read_text()
    planned = [plan(load(tmp_path / name), name)[1] for name in ("tiny.yaml", "resolved.yaml")]
    assert [cell.id for cell in planned[0]] == [cell.id for cell in planned[1]]


def test_check_counts_a_shared_first_phase_once(command):
    # Two seeds: 60 samples in batches of 128, then 30 and 60 for each of two arms; at most 9 and 4 epochs.
    settings = [
        "name=pre", "data=noisy_digits", "data.train_samples=60", "training.until={epochs: 4}",
        "strategies={random_init: {}, warm_start: {}}",
        "stream={name: pretrain, source: {name: digits, train_samples: 60, training: {until: {epochs: 9}}}}",
        "vary={stream.fraction: [0.5, 1.0]}",
    ]  # fmt: skip
    ended = command(
        "check", "digits_online", "--seeds", "0,1", *(word for each in settings for word in ("--set", each))
    )
    assert ended.out == (
        "digits_online: valid; 8 cells (2 strategies, 2 seeds), 2 first phases, 10 rounds, at most 50 steps\n"
        "one round of 30 training samples\none round of 60 training samples\n"
    )


def test_a_bundled_scenario_is_checked_by_its_name_and_as_a_rehearsal(command):
    whole, rehearsal = (command("check", "ash_adams/T1_split", *more) for more in ([], ["--rehearse"]))
    assert whole.code == rehearsal.code == 0
    assert whole.out.startswith("ash_adams/T1_split: valid; 180 cells (2 strategies, 5 seeds), ")
    assert rehearsal.out.startswith("ash_adams/T1_split: valid; 8 cells (2 strategies, 1 seed), ")


def test_data_says_what_there_is(command, tmp_path):
    said = command("data", "noisy_digits", "--set", "test_draws=1", "--data-root", tmp_path).out
    assert said == (
        "noisy_digits: 1,198 training and 599 test samples of shape 1x8x8 (float32), 10 classes; "
        f"data folder {tmp_path}\n"
    )


# Mistakes.


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        ("bogus", 2, "No such command 'bogus'; see `warmstart-sim --help`"),
        ("check", 2, "Missing argument 'scenario'; see `warmstart-sim check --help`"),
        ("list x", 2, "Got unexpected extra argument"),
        ("check tiny.yaml --bogus", 2, "No such option: --bogus"),
        ("run tiny.yaml --workers 0", 2, "Invalid value for '--workers': "),
        ("run tiny.yaml --workers two", 2, "Invalid value for '--workers': "),
        ("run tiny.yaml --track wand", 2, "--track wand: expected one of wandb, mlflow, tensorboard; did you mean"),
        ("check digits_onlin", 2, "digits_onlin: no such scenario file; did you mean 'digits_online'?"),
        ("check .", 2, ".: is a directory, not a scenario file"),
        ("check tiny.yaml --set x", 2, "--set x: expected KEY=VALUE, such as training.optimizer.lr=0.01"),
        ("check tiny.yaml --set training.lr=1", 2, "tiny.yaml: training.lr: unknown key"),
        ("check tiny.yaml --seeds a", 2, "--seeds 'a': expected whole numbers with commas, such as 0,1,2"),
        ("check tiny.yaml --seeds ''", 2, "--seeds '': expected whole numbers with commas, such as 0,1,2"),
        ("check tiny.yaml --seeds 1,1", 2, "tiny.yaml: seeds: [1, 1] has a seed twice"),
        ("check tiny.yaml --seeds -1", 2, "tiny.yaml: seeds[0]: found -1 (allowed: a whole number >= 0)"),
        ("check tiny.yaml --strategies warm_strt", 2, "--strategies: unknown strategy 'warm_strt'; did you mean"),
        ("check tiny.yaml --strategies ''", 2, "tiny.yaml: strategies: there is none"),
        ("check tiny.yaml --set stream.chunk_size=9999", 2, "tiny.yaml: stream.chunk_size: 9999 is more than the"),
        ("run tiny.yaml --slots 0", 2, "--slots 0: expected auto, or how many cells, such as 8"),
        ("run tiny.yaml --slots many", 2, "--slots many: expected auto, or how many cells, such as 8"),
        ("run tiny.yaml --batching streams --device cpu", 2, "--batching streams: needs a GPU; on a CPU"),
        ("run tiny.yaml --batching piled", 2, "Invalid value for '--batching': "),
        ("run tiny.yaml --device gpu", 2, "--device gpu: expected auto, cpu, cuda or cuda:N"),
        ("run tiny.yaml --set model=no_such:f", 2, "tiny.yaml: model 'no_such:f': cannot import no_such ("),
        ("run tiny.yaml --out tiny.yaml", 2, "--out tiny.yaml: cannot be written ("),
        ("run tiny.yaml --out tiny.yaml/sub", 2, "--out tiny.yaml/sub: cannot be written (Not a directory)"),
        ("run tiny.yaml --out /proc/run", 2, "--out /proc/run: cannot be written ("),
        ("run tiny.yaml --out .", 2, "--out .: the folder holds other files (tiny.yaml ...); choose another"),
        ("report .", 2, ".: holds no run; `warmstart-sim run SCENARIO --out .` makes one"),
        ("data digts", 2, "digts: data.name: unknown data set 'digts'; did you mean 'digits'?"),
        ("data arrays", 2, "arrays: data.path: is missing (expected a path)"),
        ("data arrays --set path=x.npz", 3, "arrays: there is no file x.npz"),
        ("check tiny.yaml --set 'data={name: arrays, path: x.npz}'", 3, "tiny.yaml: arrays: there is no file x.npz"),
        ("check tiny.yaml --set 'stream={name: pretrain}'", 2, "tiny.yaml: stream.source: is missing: the"),
        ("run tiny.yaml --set 'stream={name: pretrain, source: svnh}'", 2, "tiny.yaml: stream.source.name: unk"),
        ("run tiny.yaml --set 'stream={name: pretrain, source: mnist}'", 2, "tiny.yaml: stream.source.adapt: mn"),
        ("run tiny.yaml --set 'stream={name: pretrain, source: imdb}'", 2, "tiny.yaml: stream.source: imdb for"),
        ("run tiny.yaml --set 'stream={name: pretrain, checkpoint: w.pt}'", 3, "tiny.yaml: stream.checkpoint: "),
        ("check tiny.yaml --set 'vary={pair: {a: {}}}'", 2, "tiny.yaml: vary.pair.a: there is nothing in it"),
        ("check digits_pretrain --set data.noise=1", 2, "digits_pretrain: data.noise: would have no effect"),
        ("check digits_pretrain --set stream.fraction=2", 2, "digits_pretrain (vary pair: 'clean to noisy"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_on_stderr(command, scenario, arguments, code, line):
    ended = command(*shlex.split(arguments))
    assert ended.code == code
    assert ended.err.startswith(f"warmstart-sim: error: {line}")
    assert ended.err.count("\n") == 1
    assert ended.out == ""


def test_a_mistake_leaves_no_folder_behind(command, scenario, tmp_path):
    settings = ["training.batch_size=0", "stream.chunk_size=9999", "model=no_such_module:f", "data=no_such:f"]
    settings += [
        f"stream={{name: pretrain, source: {name}}}" for name in ("mnist", "imdb", "noisy_digits", "no_such:f")
    ]
    for setting in settings:
        assert command("run", scenario, "--set", setting).code == 2
    assert list(tmp_path.iterdir()) == [scenario]


def test_cuda_where_there_is_none_is_a_mistake(command, scenario, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--device cuda: this machine has no CUDA devices; use --device cpu" in command(
        "run", scenario, "--device", "cuda"
    ).err  # fmt: skip


def test_the_traceback_is_shown_where_it_is_asked_for(command):
    plain, traced = command("check", "nothing.yaml"), command("check", "nothing.yaml", "--traceback")
    assert plain.err.count("\n") == 1
    assert traced.err.startswith("Traceback (most recent call last):")
    assert traced.err.endswith(plain.err)
    assert traced.code == plain.code


def test_a_full_disk_is_one_line(command, scenario, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device", "runs/tiny/rounds.csv")

    monkeypatch.setattr(launch, "run_scenario", full)
    ended = command("run", scenario)
    assert ended.code == 1
    assert ended.err == (
        "warmstart-sim: error: runs/tiny/rounds.csv: cannot be read or written (No space left on device)\n"
    )


# Runs.


def test_a_run_ends_with_tables_and_a_report_and_can_be_reported_again(command, scenario, tmp_path):
    ended = command("run", scenario, "--workers", "1", "--quiet", "--strategies", "random_init,warm_start")
    assert (ended.code, ended.err) == (0, "")
    folder = tmp_path / "runs" / "tiny"
    assert "warm start" in ended.out
    assert "report: runs/tiny/report.html" in ended.out
    rounds = (folder / "rounds.csv").read_text()
    for name in ("rounds.csv", "summary.csv", "report.html"):
        (folder / name).unlink()
    assert command("report", folder).code == 0
    assert (folder / "rounds.csv").read_text() == rounds
    assert (folder / "report.html").exists()

    more = command(
        "run", scenario, "--workers", "1", "--quiet", "--strategies", "shrink_perturb", "--track", "tensorboard"
    )
    assert [path.name for path in sorted(folder.glob("tensorboard/arms/*"))] == [
        "random_init", "shrink_perturb", "warm_start",
    ]  # fmt: skip
    assert more.code == 0
    assert rounds.rstrip("\n") in (folder / "rounds.csv").read_text()  # what was there stays as it was
    assert {"random_init", "warm_start", "shrink_perturb"} == {
        path.name.split("-")[0] for path in folder.glob("cells/*")
    }

    other = command("run", scenario, "--quiet", "--set", "training.batch_size=33")
    assert other.code == 2
    assert "holds a run with other settings (training.batch_size: 32 there, 33 here)" in other.err


def test_a_strategy_of_ones_own_lies_in_the_working_folder(command, scenario, tmp_path):
    (tmp_path / "my_strategies.py").write_text(
        "def halved(previous, fresh, context, *, share=0.5):\n"
        "    return {name: tensor * share if tensor.ndim else tensor for name, tensor in previous.items()}\n"
        "def failing(previous, fresh, context):\n"
        "    raise ArithmeticError('one\\ntwo')\n"
    )
    arms = "{halved: {start: 'my_strategies:halved', share: 0.25}, failing: 'my_strategies:failing'}"
    ended = command("run", scenario, "--workers", "1", "--quiet", "--set", f"strategies={arms}")
    assert ended.code == 1
    assert "1 of the cells failed; the others are complete." in ended.err
    assert ended.err.rstrip().endswith("ArithmeticError: one")
    assert "halved" in (tmp_path / "runs" / "tiny" / "rounds.csv").read_text()


@pytest.mark.xdist_group("pool")
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_control_c_ends_in_one_line(scenario, tmp_path, monkeypatch, started):
    monkeypatch.chdir(tmp_path)
    slow = ["--set", "training.until={epochs: 100000}", "--workers", "1", "--tensorboard"]
    process = started("run", str(scenario), *slow)
    # Its log begins with the first epoch: before that, an import may swallow the interrupt.
    wait_for(lambda: list(tmp_path.glob("runs/tiny/tensorboard/*/events*")), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "warmstart-sim: interrupted; give the same command again to resume\n"


# What it leaves unimported.


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"], ["run", "--help"], ["--version"], ["list"], ["schema"],
        ["check", "digits_online"], ["check", "cifar10_online"], ["check", "cifar10_online", "--rehearse"],
        ["check", "digits_pretrain"], ["check", "ash_adams/F9_pretrain"], ["check", "digits_pretrain", "--rehearse"],
        ["run", "digits_online", "--set", "training.batch_size=0"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_needs_no_torch_does_not_import_it(arguments, tmp_path):
    code = (
        "import sys, atexit; from warmstart_sim.cli import main\n"
        "heavy = {'torch', 'torchvision', 'avalanche', 'sklearn', 'scipy', 'pandas', 'matplotlib', 'rich'}\n"
        "atexit.register(lambda: print('imported:', sorted(heavy & set(sys.modules))))\n"
        "main()"
    )
    ended = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    imported = ended.stdout.rpartition("imported: ")[2].strip()
    assert imported in ("[]", "['rich']"), ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_compiles_nothing_does_not_import_the_compiler(tiny_scenario, tmp_path):
    scenario = tmp_path / "tiny.yaml"
    scenario.write_text(yaml.safe_dump(tiny_scenario | {"seeds": [0]}, sort_keys=False))
    code = "import sys, atexit; from warmstart_sim.cli import main\n" + (
        "atexit.register(lambda: print('torch' in sys.modules, 'torch._dynamo' in sys.modules))\nmain()"
    )
    command = [sys.executable, "-c", code, "run", str(scenario), "--workers", "1", "--device", "cpu", "--quiet"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "True False"


def test_help_imports_nothing_but_the_command_line():
    code = "import sys, atexit; from warmstart_sim.cli import main\n" + (
        "atexit.register(lambda: print(*sorted({m.partition('.')[0] for m in sys.modules})))\nmain()"
    )
    said = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True).stdout
    assert not {"pydantic", "yaml", "numpy", "torch", "rich"} & set(said.splitlines()[-1].split())


def test_the_command_line_and_python_take_the_options_that_there_are():
    options = {each.name: each.default for each in dataclasses.fields(launch.RunOptions)}
    for function in (api.run, api.grid, cli.run, cli.grid):
        taken = {name: each.default for name, each in inspect.signature(function).parameters.items()}
        assert options.items() <= taken.items()
