"""Checks the options of a run on Ray; imports Ray, which is optional."""

from __future__ import annotations

import importlib
import os
import secrets
import sys
from typing import TYPE_CHECKING, Any

from warmstart_sim.errors import WarmstartError

if TYPE_CHECKING:
    from warmstart_sim.execution.options import RunOptions

LOCAL = "local"  # the value of `--ray` that starts Ray on this machine


def check_options(options: RunOptions) -> None:
    """Checks the options as far as that is possible without the cluster.

    Raises:
        WarmstartError: An option is invalid, or Ray is not installed.
    """
    if options.device not in ("auto", "cpu", "cuda"):
        raise WarmstartError(f"--device {options.device}: with --ray, Ray hands out the GPUs; choose auto, cpu or cuda")
    if options.gpus_per_worker is not None and not 0 <= options.gpus_per_worker <= 1:
        raise WarmstartError(
            f"--gpus-per-worker {options.gpus_per_worker:g}: a worker has a part of one GPU, such as 0.25, or 1, or "
            "(with 0) none"
        )
    if options.ray == LOCAL and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        # Require a token: Ray's ports must reject other clients. Ray reads these variables when it is imported.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    import_ray()


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
