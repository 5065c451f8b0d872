"""Runs cells on Ray, on this machine or on a cluster; the numbers are the same as in one process.

Cells are Ray tasks: Ray places them, tries them again when a worker or a machine is lost, and moves them elsewhere.
This package joins the cluster, sends the cells and a user's own modules, makes sure that workers have the driver's
versions and data, and brings results home. Ray is an optional extra, imported only when it is asked for.

`connected` joins the cluster that the options name; `run_cells` runs cells on it.
"""

from warmstart_sim.execution.ray.cluster import Cluster, check_options, connected
from warmstart_sim.execution.ray.executor import run_cells

__all__ = ["Cluster", "check_options", "connected", "run_cells"]
