"""The executor on Ray: workers are actors on this machine or on those of a cluster; the numbers are the same.

Ray is an optional extra, and imported only once it is asked for. Whatever dies, the run's folder says what is complete:
a worker's tasks are handed out again, and a driver that is started again goes on with what is left.

From `RayOptions` (what was asked for) `connected` makes a `Cluster`; `run_cells` runs cells on it by a crew of workers.
"""

from warmstart_sim.execution.ray.cluster import Cluster
from warmstart_sim.execution.ray.crew import run_cells
from warmstart_sim.execution.ray.joining import connected
from warmstart_sim.execution.ray.wanted import RayOptions

__all__ = ["Cluster", "RayOptions", "connected", "run_cells"]
