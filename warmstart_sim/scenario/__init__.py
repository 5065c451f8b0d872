"""Scenario files: YAML -> validated, immutable objects. Nothing here imports torch."""

from warmstart_sim.scenario.cells import Cell, first_phases, trained_cells
from warmstart_sim.scenario.component import Component
from warmstart_sim.scenario.parsing import Scenario, parse
from warmstart_sim.scenario.planning import plan
from warmstart_sim.scenario.section_checks import Arm
from warmstart_sim.scenario.yaml_files import load, set_values

__all__ = [
    "Arm", "Cell", "Component", "Scenario", "first_phases", "load", "parse", "plan", "set_values", "trained_cells",
]  # fmt: skip
