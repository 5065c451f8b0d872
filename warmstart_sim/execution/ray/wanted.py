"""What was asked for of Ray, and Ray itself, which is optional."""

from __future__ import annotations

import importlib
import os
import secrets
import sys
from dataclasses import dataclass
from typing import Any

from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution.ray.worker import Storage

HERE = "local"  # the address that means: start Ray on this machine


@dataclass(frozen=True)
class RayOptions:
    """What was asked for.

    Attributes:
        address: Of a cluster, or "local" to start Ray on this machine.
        workers: How many; None for as many as there are CPUs, or as fit on the GPUs.
        device: "auto" (GPUs where there are any), "cpu" or "cuda".
        gpus_per_worker: Of one GPU; None for a whole one.
        storage: Whether workers write into the run's folder or return results; "auto" for what they find.
    """

    address: str = HERE
    workers: int | None = None
    device: str = "auto"
    gpus_per_worker: float | None = None
    storage: Storage = "auto"

    def check(self) -> None:
        """Makes sure that it can be had as far as this machine can tell.

        Raises:
            WarmstartError: It cannot, or Ray is not installed.
        """
        if self.device not in ("auto", "cpu", "cuda"):
            raise WarmstartError(
                f"--device {self.device}: with --ray, Ray hands out the GPUs; choose auto, cpu or cuda"
            )
        if self.gpus_per_worker is not None and not 0 <= self.gpus_per_worker <= 1:
            raise WarmstartError(
                f"--gpus-per-worker {self.gpus_per_worker:g}: a worker has a part of one GPU, such as 0.25, or 1, or "
                "(with 0) none"
            )
        if self.address == HERE and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
            # What Ray listens on takes nobody's orders but ours; it reads these when it is imported.
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        import_ray()

    def gpus_each(self, device: str) -> float:
        """How much of a GPU each worker has, training on such a device."""
        return 0 if device == "cpu" else (self.gpus_per_worker or 1)


def import_ray() -> Any:
    """Ray, which is told before its import to send no usage statistics."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Without it Ray would hide the GPUs from workers on a CPU by an empty variable, and warn that this will change.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise WarmstartError('--ray: Ray is not installed: pip install "warmstart-sim[ray]"') from None
