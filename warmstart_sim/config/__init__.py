"""Scenario files: YAML -> validated, immutable objects. Nothing here imports torch."""

from warmstart_sim.config.cells import Cell, first_phases, plan
from warmstart_sim.config.component import Component
from warmstart_sim.config.scenario import Arm, Scenario, parse
from warmstart_sim.config.source import load, set_values

__all__ = ["Arm", "Cell", "Component", "Scenario", "first_phases", "load", "parse", "plan", "set_values"]
