"""What a device can do at most, measured: matrix products, copies, kernel launches."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from warmstart_sim.acceleration.graph_capture import CudaGraphCapture
from warmstart_sim.training.step_time import timed

BLOCKS, BLOCK_SECONDS = 5, 0.1


@dataclass(frozen=True)
class Rates:
    """The device's measured rates.

    Attributes:
        flops: FLOP/s of a large float32 matrix product.
        bf16_flops: The same in bfloat16.
        bytes: Bytes/s of a large copy, read and written.
        launch: Seconds to start a kernel as in our training steps: in a CUDA graph, or one by one on a CPU.
        eager_launch: Seconds to start a single kernel.
    """

    flops: float
    bf16_flops: float
    bytes: float
    launch: float
    eager_launch: float


@functools.cache
def device_rates(device: torch.device) -> Rates:
    """Measures the rates with this process's number of threads and precision."""
    cuda = device.type == "cuda"
    side, size = (8192, 2**28) if cuda else (1024, 2**25)

    def flops(dtype: torch.dtype) -> float:
        left, right, out = (torch.rand(side, side, device=device, dtype=dtype) for _ in range(3))
        return 2 * side**3 / seconds_per_call(lambda: torch.mm(left, right, out=out), device)

    source, target = (torch.ones(size, device=device) for _ in range(2))
    copy = seconds_per_call(lambda: target.copy_(source), device)
    number, count = torch.zeros(1, device=device), 1000

    def tiny() -> None:
        for _ in range(count):
            number.add_(1.0)

    one_by_one = seconds_per_call(tiny, device) / count
    launch = seconds_per_call(CudaGraphCapture(device)(tiny, []), device) / count if cuda else one_by_one
    return Rates(flops(torch.float32), flops(torch.bfloat16), 2 * 4 * size / copy, launch, one_by_one)


def seconds_per_call(work: Callable[[], object], device: torch.device) -> float:
    """Returns the median over a few blocks of calls, each timed from idle device to idle device."""

    def block(repeats: int) -> float:
        with timed(device) as clock:
            for _ in range(repeats):
                work()
        return clock.seconds / repeats

    block(1)
    once = block(1)
    blocks = BLOCKS if once < 1 else 2  # if a step takes seconds, the noise is relatively small
    return statistics.median(block(max(1, int(BLOCK_SECONDS / once))) for _ in range(blocks))
