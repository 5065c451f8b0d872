"""A Ray cluster on this machine for the tests of a module: two nodes, each with one CPU."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

# Ray reads these when it is imported, once in a process; its own processes inherit them.
os.environ |= {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Any]:
    """A cluster that takes drivers with its token only, as every one should; `.address` is for --ray."""
    pytest.importorskip("ray", reason='needs Ray: pip install "warmstart-sim[ray]"')
    if not os.environ.get("WARMSTART_SIM_CLUSTER"):  # a dozen processes that import torch: minutes, on an idle machine
        pytest.skip("starts a cluster of two nodes: set WARMSTART_SIM_CLUSTER=1, on a machine that does nothing else")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()
