"""The scenario files of the papers' rows have the settings of the published numbers."""

from __future__ import annotations

import functools

import pytest

from warmstart_sim import scenario as scenarios
from warmstart_sim.papers import reproductions
from warmstart_sim.published import published_numbers
from warmstart_sim.results.columns import column_of, plain
from warmstart_sim.scenario.component import model_to_dict

# These numbers are about networks or about several settings together, not about one setting of a table.
OF_NETWORKS = ("A-F6", "B-F3", "B-F7", "D-T3", "D-F7")
ROWS = [each for each in reproductions(["A", "B", "D"], []) if each.numbers and each.row.name not in OF_NETWORKS]


@functools.cache
def cells_of(name):
    """What each cell of a scenario's first seed is, in the words of the published numbers."""
    _, cells = scenarios.plan({**scenarios.load(name), "seeds": [0]}, name)
    return [
        {
            "strategy": cell.arm.label,
            "data_name": cell.data.name,
            "model_name": cell.model.name,
            **{
                column_of(f"{name}.{key}"): plain(value)
                for name, component in [("model", cell.model), *((part.name, part) for part in cell.arm.parts)]
                for key, value in component.options.items()
            },
            **{
                f"training_optimizer_{key}": plain(value)
                for key, value in model_to_dict(cell.arm.training.optimizer).items()
            },
            **{column_of(key): plain(value) for key, value in cell.varied.items()},
        }
        for cell in cells
    ]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.row.name)
def test_each_published_number_is_about_one_setting(row):
    """A file may have a part of a table, as some do in small; none has a setting twice."""
    numbers = [each for each in published_numbers(row.row.name) if not each.note.startswith("of ")]  # "of all methods"
    for number in numbers:
        condition = {column_of(key): plain(value) for key, value in number.condition.items() if key != "round"}
        found = [sum(condition.items() <= cell.items() for cell in cells_of(name)) for name in row.scenarios]
        assert max(found) == 1, number
