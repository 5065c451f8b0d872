"""The scenario files of Ash & Adams' and the reproduction report's rows have the settings of the published numbers."""

from __future__ import annotations

import functools

import pytest

from warmstart_sim import scenario as scenarios
from warmstart_sim.papers import reproductions
from warmstart_sim.published import published_numbers
from warmstart_sim.results.columns import column_of, plain
from warmstart_sim.scenario.component import model_to_dict

OF_NETWORKS = ("A-F6", "B-F3", "B-F7")  # these numbers are about networks, not about one setting of a table
ROWS = [each for each in reproductions(["A", "B"], []) if each.numbers and each.row.name not in OF_NETWORKS]


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
                f"training_optimizer_{key}": plain(value)
                for key, value in model_to_dict(cell.arm.training.optimizer).items()
            },
            **{column_of(key): plain(value) for key, value in cell.varied.items()},
        }
        for cell in cells
    ]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.row.name)
def test_each_published_number_is_about_one_setting(row):
    cells = [cell for name in row.scenarios for cell in cells_of(name)]
    for number in published_numbers(row.row.name):
        condition = {column_of(key): plain(value) for key, value in number.condition.items() if key != "round"}
        found = [cell for cell in cells if condition.items() <= cell.items()]
        assert len(found) == 1, number
