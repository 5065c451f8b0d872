"""The executor on Ray: workers are actors on this machine or on those of a cluster; the numbers are the same.

Ray is an optional extra, and imported only once it is asked for. Whatever dies, the run's folder says what is complete:
a worker's tasks are handed out again, and a driver that is started again goes on with what is left.

From `Wanted` (what was asked for) `connected` makes a `Cluster`; `execute` runs cells on it by a crew of workers.
"""

from warmstart_sim.sweep.on_ray.cluster import Cluster
from warmstart_sim.sweep.on_ray.crew import execute
from warmstart_sim.sweep.on_ray.joining import connected
from warmstart_sim.sweep.on_ray.wanted import Wanted

__all__ = ["Cluster", "Wanted", "connected", "execute"]
