"""Work that is recorded once and replayed: CUDA graphs, behind a seam that a machine without a GPU can stand in for.

A plain step of a small network leaves most of a GPU idle, because launching its kernels one by one takes longer than
running them. A replay launches all of them at once. What is replayed are the same kernels on the same addresses: what a
recorded piece of work reads and writes has to stay where it is, and nothing in it may wait for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from warmstart_sim.training.stepper import GraphCapture

WARM_UPS = 3  # runs before the recording, in which libraries choose their kernels and allocate their workspaces


class CudaGraphCapture:
    """Records work as CUDA graphs that share one pool of memory; they must not be replayed at the same time.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def __call__(self, work: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
        """See `GraphCapture`."""
        with torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UPS):
                    work()
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            for generator in generators:
                graph.register_generator_state(generator)
            # Other slots may have work queued, so only this thread's calls are held to the rules of a capture.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                work()
        return graph.replay


def graph_capture(device: torch.device) -> GraphCapture | None:
    """What records on this device: CUDA graphs, or nothing on a CPU, where launching costs little."""
    return CudaGraphCapture(device) if device.type == "cuda" else None
