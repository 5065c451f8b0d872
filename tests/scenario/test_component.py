"""What a scenario names: registered things, and a user's own in a module or as Python objects."""

from __future__ import annotations

import functools
import subprocess
import sys

import pytest

from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import DATASETS, MODELS, PARTS, STRATEGIES
from warmstart_sim.scenario.component import Component, check_user_component, from_object
from warmstart_sim.strategies.shrink_perturb import ShrinkPerturb


def keep(previous, fresh, context, *, share=1.0):
    return previous


class Keep:
    def __init__(self, share):
        self.share = share

    def __call__(self, previous, fresh, context):
        return previous


def keeping(share):
    def strategy(previous, fresh, context):
        return previous if share else fresh

    return strategy


def test_bind_gives_python_names_and_python_types():
    component = Component("shrink_perturb", {"lambda": 0.5, "sigma": 1, "noise": "fresh"})
    target, options = component.bind(STRATEGIES)
    assert target(**options) == ShrinkPerturb(lam=0.5, sigma=1)
    assert Component("mlp", {"widths": [3, 4]}).bind(MODELS)[1]["widths"] == (3, 4)
    assert str(Component("arrays", {"path": "a/b.npz"}).bind(DATASETS)[1]["path"]) == "a/b.npz"


def test_make_gives_an_instance_of_a_class_or_a_function_with_its_options():
    assert Component("shrink_perturb", {"lambda": 0.5}).make(STRATEGIES) == ShrinkPerturb(lam=0.5)
    assert Component("augment", {"rotation": 3.0}).make(PARTS).rotation == 3
    made = Component("own", {"share": 0.5}, target=keep).make(STRATEGIES)
    assert (made.func, made.keywords) == (keep, {"share": 0.5})


def test_an_instance_of_a_registered_class_is_the_same_as_its_name_and_options():
    component = from_object(STRATEGIES, ShrinkPerturb(lam=0.25), {})
    assert component.to_dict() == {
        "name": "shrink_perturb", "lambda": 0.25, "sigma": 0.01,
        "noise": "fresh", "parameters": "all", "buffers": "keep", "affine": "shrink",
    }  # fmt: skip


def test_a_users_object_has_a_name_that_tells_its_state_apart():
    def name(value) -> str:
        return from_object(STRATEGIES, value, {}).name

    assert name(keep).startswith(f"{__name__}:keep#")
    assert name(Keep(1)) == name(Keep(1)) != name(Keep(2))
    assert name(keeping(1)) == name(keeping(1)) != name(keeping(0))
    assert name(functools.partial(keep, share=1)) != name(functools.partial(keep, share=2))
    assert name(lambda previous, fresh, context: fresh) != name(lambda previous, fresh, context: previous)


def test_that_name_is_the_same_in_every_process(tmp_path):
    (tmp_path / "theirs.py").write_text(
        "class Keep:\n"
        "    def __init__(self, share): self.share = [share]\n"
        "    def __call__(self, previous, fresh, context): return previous\n"
        "def keep(previous, fresh, context, hook=Keep(3)): return previous\n"
    )
    code = (
        "from warmstart_sim.scenario.component import from_object; from warmstart_sim.registry import STRATEGIES\n"
        "import theirs; print(*(from_object(STRATEGIES, each, {}).name for each in (theirs.Keep(2), theirs.keep)))"
    )
    ask = functools.partial(subprocess.check_output, [sys.executable, "-c", code], cwd=tmp_path, text=True)
    assert ask() == ask()


def test_what_cannot_be_called_is_refused():
    with pytest.raises(TypeError):
        from_object(STRATEGIES, 5, {})


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("no_such_module:f", {}, "model 'no_such_module:f': cannot import no_such_module (No module named "),
        ("their_module:f", {}, "model 'their_module:f': their_module has no attribute 'f'"),
        (
            "their_module:build",
            {"depht": 3},
            "model 'their_module:build': TypeError: got an unexpected keyword argument",
        ),
        ("broken_module:f", {}, "model 'broken_module:f': SyntaxError: "),
        ("exiting_module:f", {}, "model 'exiting_module:f': SystemExit: 3"),
    ],
)
def test_a_users_module_that_does_not_work_is_one_line(name, options, line, tmp_path, monkeypatch):
    (tmp_path / "their_module.py").write_text("def build(input_shape, classes, *, depth=1): ...")
    (tmp_path / "broken_module.py").write_text("def build(: ...")
    (tmp_path / "exiting_module.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WarmstartError) as caught:
        check_user_component(Component(name, options), MODELS, "f.yaml")
    assert str(caught.value).startswith(f"f.yaml: {line}")
    assert "\n" not in str(caught.value)


def test_a_users_module_that_works_is_accepted_without_calling_it(tmp_path, monkeypatch):
    (tmp_path / "their_good_module.py").write_text("def build(input_shape, classes, *, depth=1): raise AssertionError")
    monkeypatch.syspath_prepend(tmp_path)
    check_user_component(Component("their_good_module:build", {"depth": 2}), MODELS, "f.yaml")
