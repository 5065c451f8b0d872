"""The documentation is correct: its scenarios are valid, its code runs, its command lines exist."""

from __future__ import annotations

import ast
import doctest
import functools
import importlib
import inspect
import pkgutil
import re
import shlex
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
import yaml

import warmstart_sim
from warmstart_sim import api, registry
from warmstart_sim import scenario as scenarios
from warmstart_sim.cli import app, with_ray_address
from warmstart_sim.results.columns import EPOCH_COLUMNS, ROUND_COLUMNS
from warmstart_sim.scenario.yaml_files import bundled_scenarios, with_base

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
REGISTRIES = (
    registry.STRATEGIES, registry.PARTS, registry.PROBES, registry.ANALYSES, registry.DATASETS, registry.STREAMS,
    registry.CHANGES, registry.MODELS,
)  # fmt: skip
CHANGES = ("set_", "strategies", "seeds", "rehearse")  # options of a command that change the scenario
MINIMAL = {"name": "fragment", "data": "digits", "strategies": {"random_init": {}}}
MODULES = ["warmstart_sim", *(m.name for m in pkgutil.walk_packages(warmstart_sim.__path__, "warmstart_sim."))]


@dataclass(frozen=True)
class Block:
    """A fenced code block of a page."""

    page: str
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w+)[ \t]*([^\n]*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
            language, attributes, body = match.groups()
            title = re.search(r'title="([^"]*)"', attributes)
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page.name, line, language, title[1] if title else "", body))
    return [block for block in found if block.language in languages]


def command_lines() -> list[str]:
    """All `warmstart-sim ...` commands in code blocks, inline code, and the heads of scenario files."""
    found = []
    for block in blocks("console", "bash", "sh", "shell"):
        lines = block.text.replace("\\\n", " ").splitlines()
        found += [match[1] for line in lines if (match := re.match(r"^[$ ]*(?:\S*/)?(warmstart-sim .*)", line))]
    for page in PAGES:
        found += re.findall(r"`(warmstart-sim [^`\n]+)`", page.read_text(encoding="utf-8"))
    for path in bundled_scenarios().values():
        found += re.findall(r"^# (warmstart-sim .*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return sorted(set(found))


@pytest.fixture
def documented_modules(monkeypatch) -> dict[str, types.ModuleType]:
    """Imports and registers the example modules shown in the pages, and removes them after the test."""
    ours = [block for block in blocks("python") if block.title.startswith("warmstart_sim/")]
    shown = {block.title.removesuffix(".py").replace("/", "."): block for block in ours}
    for each in REGISTRIES:
        own = {n: target for n in each.names() if (target := each.get(n)).__module__ not in shown}  # somebody added one
        monkeypatch.setattr(each, "_targets", own)
        monkeypatch.setattr(each, "_loaded", own)
        monkeypatch.setattr(each, "_traits", dict(each._traits))
        monkeypatch.setattr(each, "_details", dict(each._details))
    modules = {name: types.ModuleType(name) for name in shown}
    for name, block in shown.items():
        monkeypatch.setitem(sys.modules, name, modules[name])
        exec(compile(block.text, str(block), "exec", dont_inherit=True), vars(modules[name]))
    return modules


def test_there_is_something_to_check():
    assert len(blocks("yaml")) > 5
    assert len(blocks("python")) > 5
    assert len(command_lines()) > 10


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_scenarios_and_fragments_of_scenarios_are_valid(block, documented_modules):
    raw = yaml.safe_load(block.text)
    raw = with_base(raw, str(block))
    scenarios.plan(raw if "name" in raw else {**MINIMAL, **raw}, str(block))


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_compiles_and_what_it_imports_from_us_is_there(block, documented_modules):
    tree = ast.parse(block.text, str(block))
    compile(tree, str(block), "exec", dont_inherit=True)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("warmstart_sim"):
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.usefixtures("no_figures")
@pytest.mark.slow
def test_the_python_example_runs(tmp_path, monkeypatch):
    (block,) = (b for b in blocks("python") if b.page == "own_data_and_model.md" and "results = run(" in b.text)
    code = block.text.replace("seeds=[0, 1, 2]", "seeds=[0, 1], quiet=True")
    assert code != block.text
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("documented_example")
    monkeypatch.setitem(sys.modules, "documented_example", module)
    exec(compile(code, str(block), "exec", dont_inherit=True), vars(module))
    assert list(module.results.summary()["strategy"]) == ["random_init", "warm_start", "shrink_perturb", "average"]
    assert (tmp_path / "runs" / "mine" / "report.html").exists()


def test_modules_shown_for_the_package_register_something_with_a_schema(documented_modules):
    kinds = {module.split(".")[1] for module in documented_modules}
    assert kinds == {"strategies", "datasets", "streams", "models", "parts", "probes"}
    for name in documented_modules:
        entries = [(e, n) for e in REGISTRIES for n in e.names() if getattr(e.get(n), "__module__", "") == name]
        assert len(entries) == 1, name
        (each, registered) = entries[0]
        assert each.schema(registered).model_json_schema()["additionalProperties"] is False
        assert each.summary(registered)


def test_examples_of_new_modules_train_in_a_scenario(documented_modules, tiny_scenario, tmp_path, monkeypatch):
    """Each example is one file and no other change: a scenario names it, and its cells train and measure."""
    monkeypatch.setattr("warmstart_sim.report.write", lambda folder: None)
    tiny_scenario |= {
        "stream": {"name": "online", "chunk_size": 50, "changes": {"fade": {"per_round": 0.2}}},
        "model": {"name": "two_layers", "units": 12},
        "strategies": {
            "random_init": {},
            "renew": {},
            "rescale_blocks": {"samples": 40},
            "taught": {"start": "random_init", "self_distillation": {"beta": 2.0}},
            "reset": {"start": "warm_start", "reset_weak_units": {"share": 0.5, "every": 2}},
            "noisy": {"start": "warm_start", "pixel_noise": {"deviation": 0.5}},
        },
        "training": {"batch_size": 32, "until": {"epochs": 4}},
        "seeds": [0],
        "measure": {"each_epoch": [{"logit_scale": {"samples": 20}}]},
    }
    results = api.run(tiny_scenario, out=tmp_path, workers=1, quiet=True)
    last = results.rounds[results.rounds["round"] == 2].set_index("strategy")
    assert list(last.index) == list(tiny_scenario["strategies"])
    assert last["train_loss"].nunique() == len(last)  # none of them is without effect
    assert (results.epochs["logit_scale"] > 0).all()
    assert results.failures == {}


def test_tests_shown_for_the_package_pass(documented_modules):
    shown = [block for block in blocks("python") if block.title.startswith("tests/")]
    assert shown
    for block in shown:
        names = {}
        exec(compile(block.text, str(block), "exec", dont_inherit=True), names)
        tests = [function for name, function in names.items() if name.startswith("test_")]
        assert tests
        for test in tests:
            test()


@pytest.mark.parametrize("line", command_lines())
def test_command_lines_exist_and_their_scenarios_are_valid(line, documented_modules):
    words = with_ray_address(shlex.split(line, comments=True)[1:])  # as `main` reads them
    words = words[: words.index(">")] if ">" in words else words
    command = typer.main.get_command(app)
    try:
        context = command.make_context("warmstart-sim", list(words))
        name, subcommand, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = subcommand.make_context(name, rest, parent=context)
    except typer.Exit:  # --help and --version answer while they are read
        return
    given = context.params
    if name not in ("run", "check"):
        return
    if re.fullmatch(r"photos\.yaml|SCENARIO|FILE", given["scenario"]):  # a reader's own
        return
    if given["scenario"] in bundled_scenarios() and not any(given[each] for each in CHANGES):
        return  # tests/scenario/test_rehearsal.py checks it
    scenario, where = api.prepare_scenario(
        given["scenario"], set=given["set_"] or (), **{each: given[each] for each in CHANGES[1:]}
    )
    scenarios.plan(scenario, where)


def test_every_column_and_every_name_is_explained():
    text = {page.stem: page.read_text(encoding="utf-8") for page in PAGES}
    columns = {column for column in (*ROUND_COLUMNS, *EPOCH_COLUMNS) if f"`{column}`" not in text["results_and_report"]}
    assert columns == set()
    names = {name for each in (registry.STRATEGIES, registry.PARTS) for name in each.names()}
    assert {name for name in names if f"\n## `{name}`" not in text["strategies_and_parts"]} == set()
    listed = [(registry.PROBES, "strategies_and_parts"), (registry.ANALYSES, "results_and_report")]
    assert {name for each, page in listed for name in each.names() if f"\n| `{name}` |" not in text[page]} == set()
    in_scenarios = (registry.DATASETS, registry.STREAMS, registry.CHANGES, registry.MODELS)
    names = {name for each in in_scenarios for name in each.names()}
    assert {name for name in names if f"`{name}`" not in text["scenarios"]} == set()
    options = {
        option
        for each in (registry.STRATEGIES, registry.PARTS, registry.PROBES)
        for name in each.names()
        for option in fields(each, name)
    }
    assert {option for option in options if f"`{option}`" not in text["strategies_and_parts"]} == set()
    options = {option for each in in_scenarios for name in each.names() for option in fields(each, name)}
    assert {option for option in options if f"`{option}`" not in text["scenarios"]} == set()


def fields(each: registry.Registry, name: str) -> list[str]:
    return [field.alias or key for key, field in each.schema(name).model_fields.items()]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name):
    module = importlib.import_module(name)
    tests = [test for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples]
    found = sum(len(test.examples) for test in tests)
    assert found == count_of_examples(module), "doctest does not see every example"
    runner = doctest.DocTestRunner(verbose=False)
    report: list[str] = []
    for test in tests:
        runner.run(test, out=report.append)
    assert not report, "".join(report)


def count_of_examples(module: types.ModuleType) -> int:
    """Counts the examples (`>>>`) in the docstrings of the source."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, documented)]
    return sum(len(re.findall(r"^\s*>>> ", ast.get_docstring(node) or "", flags=re.MULTILINE)) for node in nodes)


def test_public_names_exist_and_import_without_torch():
    code = (
        "import sys, warmstart_sim\n"
        "assert set(warmstart_sim.__all__) <= set(dir(warmstart_sim))\n"
        "assert not {'numpy', 'pydantic', 'torch'} & set(sys.modules), 'the package itself is quick'\n"
        "for name in warmstart_sim.__all__:\n"
        "    assert getattr(warmstart_sim, name).__name__ == name\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_are_in_the_reference():
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert {name for name in warmstart_sim.__all__ if f".{name}\n" not in reference} == set()


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'warmstart_sim' has no attribute 'shrink'"):
        _ = warmstart_sim.shrink


WITH_LINKS = [*ROOT.glob("*.md"), *(path for folder in ("docs", "results", "benchmarks", "examples", "scenarios")
              for suffix in ("md", "html") for path in (ROOT / folder).rglob(f"*.{suffix}"))]  # fmt: skip


@functools.cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as MkDocs makes them."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".html":
        return set(re.findall(r'id="([^"]+)"', text))
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


@pytest.mark.parametrize("page", WITH_LINKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    pattern = r"\]\(([^)\s]+)\)" if page.suffix == ".md" else r'(?:href|src)="([^"]+)"'
    dead = []
    for link in re.findall(pattern, text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not re.match(r"[a-z]+:", link) and not (target.exists() and (not anchor or anchor in anchors(target))):
            dead.append(link)
    assert dead == []
