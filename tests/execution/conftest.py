"""A Ray cluster on this machine."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.execution.waiting import wait_for
from warmstart_sim.execution.options import RunOptions
from warmstart_sim.execution.ray import cluster

# Ray reads these when it is imported, once in a process; its own processes inherit them.
os.environ |= {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@pytest.fixture(scope="session")
def two_nodes() -> Iterator[Any]:
    """A cluster that takes drivers with its token only, as every one should: two nodes, each with one CPU."""
    ray = pytest.importorskip("ray", reason='needs Ray: pip install "warmstart-sim[ray]"')
    from ray.cluster_utils import Cluster

    config = {"health_check_period_ms": 300, "health_check_initial_delay_ms": 300}  # a lost node is noticed in seconds
    config["worker_niceness"] = 0  # by default, tests that run beside these come first
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": config}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes.add_node(num_cpus=1)
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


@pytest.fixture
def ray_cluster(two_nodes) -> Any:
    """The cluster once nobody is at work on it any more; `.address` is for --ray.

    This process has joined it, and stays: the next test finds workers that have imported torch.
    """
    import ray

    if not ray.is_initialized():
        cluster._start(ray, RunOptions(ray=two_nodes.address), [])

    def free() -> float:
        nodes = two_nodes.global_state.available_resources_per_node()
        return sum(node.get("CPU", 0) for node in nodes.values())

    wait_for(lambda: free() == 2)
    return two_nodes
