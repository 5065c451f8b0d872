"""Scenario files are found and read as written, and what cannot be read is said in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.scenario.overrides import prepare_scenario
from warmstart_sim.scenario.yaml_files import (
    bundled_scenarios,
    find,
    headline,
    parse_yaml,
    set_path,
    split_key,
    to_plain_values,
)

CHECKOUT = Path(__file__).resolve().parents[2] / "scenarios"


def the_line(load, *args) -> str:
    with pytest.raises(WarmstartError) as caught:
        load(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Finding a file.


def test_bundled_scenarios_are_all_yaml_files_of_the_folder():
    files = [path for path in CHECKOUT.rglob("*.yaml") if not path.name.startswith("common")]
    assert sorted(bundled_scenarios().values()) == sorted(files)


@pytest.mark.parametrize("name", ["digits_online", "digits_online.yaml", "scenarios/digits_online.yaml"])
def test_a_bundled_scenario_is_found_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find(name).samefile(CHECKOUT / "digits_online.yaml")


def test_a_file_goes_before_a_bundled_scenario_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits_online").write_text("name: mine")
    assert scenarios.load("digits_online") == {"name": "mine"}


def test_what_cannot_be_found_is_one_line(tmp_path):
    assert the_line(find, "digits_onlin").startswith(
        "digits_onlin: no such scenario file; did you mean 'digits_online'? (bundled: "
    )
    assert the_line(find, tmp_path) == f"{tmp_path}: is a directory, not a scenario file"
    assert "is empty" in the_line(find, "")
    assert "no such scenario file" in the_line(find, "x" * 5000)  # longer than a file system allows


def test_every_bundled_scenario_begins_with_what_it_is():
    assert all(len(headline(path)) > 20 for path in bundled_scenarios().values())


# Reading it.


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "the file is empty; a scenario needs at least `name`, `data`, `strategies`"),
        (b"# nothing\n", "the file is empty; a scenario needs at least `name`, `data`, `strategies`"),
        (b"\x89PNG\r\n\x1a\n\x00", "is not a text file; a scenario is YAML in UTF-8"),
        (b"name: \x07", "YAML syntax: unacceptable character #x0007: special characters are not allowed"),
        (b"hello", "a scenario is a mapping of keys to values, found 'hello'"),
        (b"[1, 2]", "a scenario is a mapping of keys to values, found [1, 2]"),
        (b"a: b: c", "line 1, column 5: YAML syntax: mapping values are not allowed here"),
        (b"name: x\ndata:\n  name: y\n  name: z", "line 4, column 3: YAML syntax: key 'name' is given twice"),
        (b"? [a]\n: 1", "line 1, column 3: YAML syntax: a key must be text"),
        (b"a: *b", "line 1, column 4: YAML syntax: found undefined alias 'b'"),
        (b"a: &a [*a]", "YAML syntax: a value contains itself, or is nested too deeply"),
        (b"a: " + 500 * b"[", "YAML syntax: a value contains itself, or is nested too deeply"),
        (b"a: 2024-99-99", "YAML syntax: month must be in 1..12"),
        (b"a: !!bool maybe", "YAML syntax: 'maybe'"),
    ],
)
def test_what_is_no_scenario_is_one_line_with_its_place(content, line, tmp_path):
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    assert the_line(scenarios.load, path) == f"{path}: {line}"


def test_a_tag_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("a: !!python/object/apply:os.getcwd []")
    assert "could not determine a constructor for the tag" in the_line(scenarios.load, path)


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: x")
    assert scenarios.load(path) == {"name": "x"}


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.e-4", ".1e-3", "0.1e-3", "1e-04", "+1e-4"])
def test_every_way_to_write_a_number_is_a_number(text):
    assert parse_yaml(text) == 0.0001
    assert parse_yaml(f"-{text}" if text[0] != "+" else text) in (-0.0001, 0.0001)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_read_as_python_writes_them(number):
    assert parse_yaml(repr(number)) == number


@pytest.mark.parametrize("text", ["e4", "1e", "1-4", "1e-4x", "v1e4"])
def test_text_with_an_e_stays_text(text):
    assert parse_yaml(text) == text


def test_keys_are_text_as_they_stand():
    assert parse_yaml("{no: 1, 1: 2, 0.5: 3, null: 4}") == {"no": 1, "1": 2, "0.5": 3, "null": 4}


def test_anchors_and_merge_keys_work_as_in_yaml():
    text = "base: &base {lr: 1, momentum: 2}\nmine:\n  <<: *base\n  lr: 3\n"
    assert parse_yaml(text) == yaml.safe_load(text) == {
        "base": {"lr": 1, "momentum": 2}, "mine": {"lr": 3, "momentum": 2}
    }  # fmt: skip


# A base.


@pytest.fixture
def write(tmp_path):
    def write(file: str, **settings) -> Path:
        path = tmp_path / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(settings))
        return path

    return write


def test_the_settings_of_a_file_stand_over_those_of_its_base_and_of_the_bases_base(write):
    write("sub/lowest.yaml", model={"name": "mlp", "widths": [5], "bias": True}, seeds=[1, 2], training={"threads": 2})
    write("sub/low.yaml", base="lowest.yaml", model={"bias": False}, training={"until": {"epochs": 3, "steps": 4}})
    path = write("f.yaml", base="sub/low.yaml", seeds=[3], training={"until": {"steps": None}})
    assert scenarios.load(path) == {
        "model": {"name": "mlp", "widths": [5], "bias": False},
        "seeds": [3],
        "training": {"threads": 2, "until": {"epochs": 3, "steps": None}},
    }


def test_name_title_and_figures_are_a_files_own(write):
    write("low.yaml", name="low", title="Low", reproduces=["A-F1"], metric="test_accuracy")
    assert scenarios.load(write("f.yaml", base="low.yaml", name="f")) == {"name": "f", "metric": "test_accuracy"}


@pytest.mark.parametrize(
    ("section", "below", "above", "merged"),
    [
        ("model", "mlp", {"bias": False}, {"name": "mlp", "bias": False}),
        ("model", {"name": "mlp", "bias": False}, "mlp", "mlp"),
        ("model", {"name": "mlp", "bias": False}, {"name": "resnet18"}, {"name": "resnet18"}),
        ("model", {"name": "mlp", "bias": False}, None, None),
        ("strategies", {"a": "warm_start"}, {"b": {}}, {"a": "warm_start", "b": {}}),
        ("strategies", {"a": "warm_start"}, {"a": {"sigma": 1}}, {"a": {"start": "warm_start", "sigma": 1}}),
        ("strategies", {"warm_start": {"x": 1}}, {"warm_start": {"start": "a:b"}}, {"warm_start": {"start": "a:b"}}),
        ("vary", {"a.b": [1, 2], "c.d": [3]}, {"a.b": [4]}, {"a.b": [4], "c.d": [3]}),
        ("vary", {"a.b": [1, 2], "c.d": [3]}, {"a.b": None}, {"c.d": [3]}),
        ("vary", {"pair": {"x": {"a": 1}}}, {"pair": {"y": {"b": 2}}}, {"pair": {"y": {"b": 2}}}),
        ("vary", {"a.b": [1, 2]}, None, None),
    ],
)  # fmt: skip
def test_mappings_merge_and_anything_else_replaces(write, section, below, above, merged):
    write("low.yaml", **{section: below})
    assert scenarios.load(write("f.yaml", base="low.yaml", **{section: above})) == {section: merged}


def test_a_base_may_be_a_bundled_scenario_and_python_may_name_one(write, tmp_path, monkeypatch):
    path = write("f.yaml", base="digits_online", name="mine", seeds=[0])
    expected = {**scenarios.load("digits_online"), "name": "mine", "seeds": [0]}
    del expected["title"]
    assert scenarios.load(path) == expected
    monkeypatch.chdir(tmp_path)
    assert prepare_scenario({"base": "f.yaml", "name": "mine"})[0] == expected


def test_a_base_that_cannot_be_is_one_line(write, tmp_path):
    assert the_line(scenarios.load, write("f.yaml", base="digits_onlin")).startswith(
        f"{tmp_path}/f.yaml: base: digits_onlin: no such scenario file; did you mean 'digits_online'? (bundled: "
    )
    assert the_line(scenarios.load, write("f.yaml", base=[1])) == (
        f"{tmp_path}/f.yaml: base: found [1] (allowed: the path of a scenario file, or its name)"
    )
    write("low.yaml", base="f.yaml")
    assert the_line(scenarios.load, write("f.yaml", base="low.yaml")) == (
        f"{tmp_path}/f.yaml: base: {tmp_path}/low.yaml: base: a scenario cannot be based on itself "
        "(f.yaml -> low.yaml -> f.yaml)"
    )
    (tmp_path / "low.yaml").write_text("a: b: c")
    assert "low.yaml: line 1, column 5: YAML syntax: " in the_line(scenarios.load, tmp_path / "f.yaml")


# Values from Python.


def test_plain_values_are_what_yaml_can_hold():
    seeds, path = np.arange(2), Path("a/b")
    assert to_plain_values({"seeds": seeds, "path": path, "lr": np.float64(0.5), 1: (1, 2)}) == {
        "seeds": [0, 1], "path": "a/b", "lr": 0.5, "1": [1, 2]
    }  # fmt: skip
    assert type(to_plain_values(seeds[0])) is int


def test_plain_leaves_a_users_objects_alone():
    marker = object()
    assert to_plain_values({"model": [marker]})["model"][0] is marker


# --set.


def test_a_set_value_is_yaml_and_replaces_the_whole_value():
    raw = {"training": {"until": {"train_accuracy": 0.99, "max_epochs": 5}}}
    changed = scenarios.set_values(raw, ["training.until={epochs: 3}", "seeds=[1, 2]", "title=a=b"])
    assert changed == {"training": {"until": {"epochs": 3}}, "seeds": [1, 2], "title": "a=b"}
    assert raw == {"training": {"until": {"train_accuracy": 0.99, "max_epochs": 5}}}


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("lr", "--set lr: expected KEY=VALUE, such as training.optimizer.lr=0.01"),
        (" =1", "--set  =1: expected KEY=VALUE, such as training.optimizer.lr=0.01"),
        ("model=}", "--set model=}: line 1, column 1: YAML syntax: while parsing a block node, "),
        ("seeds.first=1", "--set seeds.first=1: seeds is [0, 1], which has no keys of its own"),
    ],
)
def test_a_set_that_makes_no_sense_is_one_line(edited, assignment, line):
    assert the_line(scenarios.set_values, edited(), [assignment]).startswith(line)


def test_shorthands_are_written_out_where_a_key_goes_through_them():
    raw = {"model": "mlp", "strategies": {"mine": "warm_start", "other": {"augment": ["rotation"]}}, "training": None}
    set_path(raw, "model.widths", [5])
    set_path(raw, "strategies.mine.training.batch_size", 8)
    set_path(raw, "strategies.other.augment.random_crop", 2)
    set_path(raw, "training.optimizer.lr", 1)
    assert raw == {
        "model": {"name": "mlp", "widths": [5]},
        "strategies": {
            "mine": {"start": "warm_start", "training": {"batch_size": 8}},
            "other": {"augment": {"rotation": True, "random_crop": 2}},
        },
        "training": {"optimizer": {"lr": 1}},
    }


@given(st.lists(st.text("ab.", min_size=1), min_size=1, max_size=4))
def test_the_steps_of_a_key_put_together_are_the_key(words):
    key = ".".join(words)
    assert ".".join(split_key({}, key)) == key
    assert split_key({words[0]: {}}, key)[0].startswith(words[0])


def test_a_label_may_hold_dots():
    raw = {"strategies": {"shrink_0": {"sigma": 0}, "shrink_0.6": {"sigma": 0}}}
    changed = scenarios.set_values(raw, ["strategies.shrink_0.6.sigma=1", "strategies.shrink_0.sigma=2"])
    assert changed == {"strategies": {"shrink_0": {"sigma": 2}, "shrink_0.6": {"sigma": 1}}}
