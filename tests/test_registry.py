"""Everything that is registered can be named, listed and checked without torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from warmstart_sim import registry
from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import Registry, option_schema

REGISTRIES = (
    registry.STRATEGIES,
    registry.PARTS,
    registry.ANALYSES,
    registry.DATASETS,
    registry.STREAMS,
    registry.MODELS,
)
REGISTERED = [pytest.param(each, name, id=f"{each.kind}-{name}") for each in REGISTRIES for name in each.names()]


@pytest.mark.parametrize(("kind", "name"), REGISTERED)
def test_everything_has_a_line_that_says_what_it_is(kind, name):
    summary = kind.summary(name)
    assert 20 < len(summary) < 150
    assert summary.rstrip().endswith(".")
    assert "\n" not in summary


@pytest.mark.parametrize(("kind", "name"), REGISTERED)
def test_everything_has_a_schema_of_its_options(kind, name):
    schema = kind.schema(name)
    assert issubclass(schema, BaseModel)
    assert schema.model_json_schema()["additionalProperties"] is False
    needed = {field for field, each in schema.model_fields.items() if each.is_required()}
    if not needed:
        assert schema().model_dump(by_alias=True) == schema(**schema().model_dump(by_alias=True)).model_dump(
            by_alias=True
        )
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        schema.model_validate({**dict.fromkeys(needed, "x"), "no_such_option": 1})


@pytest.mark.parametrize(("kind", "name"), REGISTERED)
def test_names_can_be_typed_and_stand_in_files(kind, name):
    assert name == name.lower()
    assert name.isidentifier()
    assert kind.get(name) is kind.get(name)


@pytest.mark.parametrize("kind", REGISTRIES, ids=lambda kind: kind.kind)
def test_an_unknown_name_is_told_its_nearest(kind):
    name = kind.names()[0]
    with pytest.raises(WarmstartError) as caught:
        kind.get(f"{name}x")
    assert str(caught.value) == (
        f"unknown {kind.kind} '{name}x'; did you mean '{name}'? (there are: {', '.join(kind.names())})"
    )


def test_nothing_of_it_imports_torch():
    code = (
        "import sys; from warmstart_sim import registry as r\n"
        "for each in (r.STRATEGIES, r.PARTS, r.ANALYSES, r.DATASETS, r.STREAMS, r.MODELS):\n"
        "    for name in each.names(): each.summary(name), each.schema(name).model_json_schema()\n"
        "heavy = {'torch', 'torchvision', 'avalanche', 'sklearn', 'scipy', 'pandas', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


# A registry of one's own.


@pytest.fixture
def animals(tmp_path, monkeypatch) -> Registry:
    """A registry over a package with two modules, one of which is private."""
    package = tmp_path / "animals_of_this_test"
    package.mkdir()
    (package / "__init__.py").write_text("LOADED = []")
    (package / "cat.py").write_text("from animals_of_this_test import LOADED\nLOADED.append('cat')")
    (package / "_dog.py").write_text("raise AssertionError('private modules are not imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for module in [name for name in sys.modules if name.startswith("animals_of_this_test")]:
        monkeypatch.delitem(sys.modules, module)
    return Registry("animal", "animals_of_this_test")


def test_modules_are_imported_when_a_name_is_asked_for(animals):
    assert "animals_of_this_test" not in sys.modules
    assert animals.names() == []
    assert sys.modules["animals_of_this_test"].LOADED == ["cat"]


def test_a_name_is_registered_once_with_its_traits(animals):
    @animals.register("cat", "purrs")
    def cat():
        """Says meow."""

    assert animals.get("cat") is cat
    assert animals.summary("cat") == "Says meow."
    assert animals.has_trait("cat", "purrs")
    assert not animals.has_trait("cat", "barks")
    assert not animals.has_trait("some_module:cat", "purrs")
    with pytest.raises(ValueError, match="two animal entries are called 'cat'"):
        animals.register("cat")(cat)


def test_a_users_own_is_imported_by_module_and_attribute(animals):
    import math

    assert animals.get("math:sqrt") is math.sqrt
    with pytest.raises(WarmstartError, match="animal 'math:sqroot': math has no attribute 'sqroot'"):
        animals.get("math:sqroot")
    with pytest.raises(WarmstartError, match="animal 'no_such_module:f': cannot import no_such_module"):
        animals.get("no_such_module:f")


def function(
    data: object,
    *,
    size: Annotated[int, Field(ge=1)] = 3,
    kind: Literal["a", "b"] = "a",
    lam: Annotated[float, Field(alias="lambda")],
) -> None:
    """Takes one argument, and three options."""


@dataclass(frozen=True)
class Thing:
    """Has one option."""

    depth: tuple[int, ...] = (1, 2)


def test_options_are_a_functions_keyword_only_parameters_and_a_classes_fields():
    schema = option_schema(function, "function")
    assert list(schema.model_fields) == ["size", "kind", "lam"]
    assert schema.model_validate({"lambda": 0.5}).model_dump() == {"size": 3, "kind": "a", "lambda": 0.5}
    assert option_schema(Thing, "thing")().model_dump() == {"depth": (1, 2)}


@pytest.mark.parametrize(
    "options",
    [{}, {"lambda": 1, "size": 0}, {"lambda": 1, "kind": "c"}, {"lambda": float("nan")}, {"lambda": 1, "data": 1}],
)
def test_options_out_of_their_ranges_are_refused(options):
    with pytest.raises(ValidationError):
        option_schema(function, "function").model_validate(options)
