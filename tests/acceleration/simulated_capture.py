"""A stand-in for CUDA graphs on the CPU, for tests that need no device: the simulated device's log of calls alone.

Unlike a CUDA graph, it also runs the work during the capture. It does not see `tensor.tolist()` and `tensor.numpy()`,
which call no operator; `tests.fake_cuda` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.fake_cuda import operators
from tests.fake_cuda.call_log import CallLog
from warmstart_sim.acceleration.graph_capture import WARM_UPS


class _Logging(TorchDispatchMode):
    """Logs all operators that are called: forward, backward (which a CPU runs in the same thread) and optimiser."""

    def __init__(self, log: CallLog) -> None:
        super().__init__()
        self._log = log

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if operator.namespace != "aten":  # notes for profilers
            return operator(*args, **kwargs)
        if operators.waits(operator, args):
            raise RuntimeError(f"{operator} waits for the device, which is not permitted during a capture")
        self._log.check_generators(operator, (args, kwargs))
        remembered = self._log.arguments((args, kwargs))
        results = operator(*args, **kwargs)
        self._log.add(operator, remembered, results)
        return results


class SimulatedCapture:
    """A `GraphCapture` for tensors on the CPU.

    Attributes:
        captures: The number of captures.
        replays: The number of replays, of all of them together.
    """

    def __init__(self) -> None:
        self.captures = 0
        self.replays = 0

    def __call__(
        self, work: Callable[[], None], generators: Sequence[torch.Generator], warm_up: Callable[[], None] | None = None
    ) -> Callable[[], None]:
        """See `GraphCapture`."""
        for _ in range(WARM_UPS):
            (warm_up or work)()
        log = CallLog(generators)
        with _Logging(log):
            work()
        log.close()
        self.captures += 1

        def replay() -> None:
            assert not any(log.freed()), "a replay after memory that it uses was freed"
            log.replay()
            self.replays += 1

        return replay
