"""Captures work as CUDA graphs and replays it; on a CPU nothing is captured.

A step of a small network leaves most of a GPU idle, because launching its kernels one by one takes longer than running
them. A replay launches all of them at once: the same kernels on the same addresses. So everything that captured work
reads and writes must stay where it is, and nothing in it may wait for the device.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import torch

from warmstart_sim.training.captures import GraphCapture

WARM_UPS = 3  # runs before the capture, in which libraries choose their kernels and allocate their workspaces


class CudaGraphCapture:
    """Captures CUDA graphs that share one memory pool; they must not be replayed at the same time.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()  # that are still in use

    def __call__(
        self, work: Callable[[], None], generators: Sequence[torch.Generator], warm_up: Callable[[], None] | None = None
    ) -> Callable[[], None]:
        """See `GraphCapture`."""
        with torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream())
            try:
                with torch.cuda.stream(self._stream):
                    for _ in range(WARM_UPS):
                        (warm_up or work)()
            finally:  # also where a warm-up fails: the caller then puts back what it has changed
                torch.cuda.current_stream().wait_stream(self._stream)
            if not self._graphs:  # a pool of dead graphs cannot be used again while anything holds memory in it
                self._pool = torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            for generator in generators:
                graph.register_generator_state(generator)
            # Other slots may have work queued: only this thread's calls must follow the rules of a capture.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                work()
        self._graphs.add(graph)
        return graph.replay


def graph_capture(device: torch.device) -> GraphCapture | None:
    """The graph capture of a device: CUDA graphs, or None on a CPU, where launching kernels is cheap."""
    return CudaGraphCapture(device) if device.type == "cuda" else None
