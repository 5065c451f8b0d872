"""The options of a run on Ray, and the import of Ray, which is optional."""

from __future__ import annotations

import importlib
import os
import secrets
import sys
from dataclasses import dataclass
from typing import Any, Literal

from warmstart_sim.errors import WarmstartError

LOCAL = "local"  # the address that starts Ray on this machine

Storage = Literal["auto", "shared", "returned"]


@dataclass(frozen=True)
class RayOptions:
    """The options of a run on Ray.

    Attributes:
        address: Address of a cluster, or "local" to start Ray on this machine.
        workers: Number of workers; None for as many as there are CPUs, or as fit on the GPUs.
        device: "auto" (GPUs if the cluster has any), "cpu" or "cuda".
        gpus_per_worker: Share of one GPU for each worker; None for a whole one.
        storage: Whether workers write into the run folder ("shared") or return results ("returned"); with "auto", each
            worker looks whether it sees the folder.
    """

    address: str = LOCAL
    workers: int | None = None
    device: str = "auto"
    gpus_per_worker: float | None = None
    storage: Storage = "auto"

    def check(self) -> None:
        """Checks the options as far as that is possible without the cluster.

        Raises:
            WarmstartError: An option is invalid, or Ray is not installed.
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
        if self.address == LOCAL and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
            # Require a token: Ray's ports must reject other clients. Ray reads these variables when it is imported.
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        import_ray()

    def gpus_each(self, device: str) -> float:
        """The share of a GPU that each worker takes when training on `device`."""
        return 0 if device == "cpu" else (self.gpus_per_worker or 1)


def import_ray() -> Any:
    """Imports Ray, with its usage statistics off.

    Raises:
        WarmstartError: Ray is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray warns that it will stop hiding the GPUs from tasks that take none; this chooses what it will do.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise WarmstartError('--ray: Ray is not installed: pip install "warmstart-sim[ray]"') from None
