"""What limits a training step: floating-point operations, memory traffic, or kernel launches.

    python benchmarks/limits.py [--device cuda] [--models mlp,resnet18_w16]
    python benchmarks/limits.py --profile resnet18_w16    the operators in which a step spends its time

The limits are estimates, based on rates measured in the same run. A step may be faster than a limit: operators that
work in a cache move less memory than is counted here, and some convolutions need fewer multiplications. A fused
recurrent operator counts as one launch, although it starts many kernels.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from document import Budget, Document, Row, Section, table
from loops import BATCH, MODELS, Problem, our_training
from rates import Rates, device_rates, seconds_per_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from warmstart_sim.acceleration.graph_capture import graph_capture
from warmstart_sim.experiment.cell_trainer import set_up_torch
from warmstart_sim.training.settings import Training

PROFILED_STEPS = 3
aten = torch.ops.aten
NO_KERNEL = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided, aten._unsafe_view}
# Of the first argument, these use only the shape, or they overwrite it.
FILLING = {
    aten.zeros_like, aten.ones_like, aten.full_like, aten.new_zeros, aten.new_ones, aten.new_full, aten.zero_,
    aten.fill_, aten.copy_,
}  # fmt: skip
GATHERING = {aten.index_select, aten.index, aten.gather, aten.embedding}  # these read only as much as they return


class Traffic(TorchDispatchMode):
    """Counts operators that start a kernel, and the bytes of the tensors that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        returns_view = any(each.alias_info and not each.alias_info.is_write for each in func._schema.returns)
        if func.namespace == "aten" and func.overloadpacket not in NO_KERNEL and not returns_view:
            self.launches += 1
            self.bytes += _moved(func, args, kwargs or {}, result)
        return result


def _moved(func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> int:
    schema = func._schema
    given = dict(zip((argument.name for argument in schema.arguments), args, strict=False)) | kwargs
    changed = [given.get(each.name) for each in schema.arguments if each.alias_info and each.alias_info.is_write]
    results = [result] if len(schema.returns) == 1 else result or ()
    new = _bytes([each for each, said in zip(results, schema.returns, strict=True) if said.alias_info is None])
    read = new if func.overloadpacket in GATHERING else _bytes(args[1:] if func.overloadpacket in FILLING else given)
    return read + _bytes(changed) + new


def _bytes(tree: Any) -> int:
    """The bytes of all tensors; dimensions with stride zero count once."""
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
    return sum(
        each.element_size() * math.prod(size for size, stride in zip(each.shape, each.stride(), strict=True) if stride)
        for each in tensors
    )


def traffic(step: Callable[[], None]) -> Traffic:
    """Counts the memory traffic and launches of a training step, which must run eagerly; it runs twice."""
    step()  # creates the optimiser's state
    with Traffic() as counted:
        step()
    return counted


def section(names: Sequence[str], device: torch.device) -> Section:
    """Each model's step time beside its limits."""
    rates = device_rates(device)
    eager = f" (one by one {1e6 * rates.eager_launch:.2f} us)" if device.type == "cuda" else ""
    note = (
        f"One of our steps on a batch of {BATCH}, beside the time of its parts alone at the rates measured here: "
        f"matrix products {rates.flops / 1e9:,.0f} GFLOP/s in float32 and {rates.bf16_flops / 1e9:,.0f} in bf16, "
        f"copies {rates.bytes / 1e9:,.0f} GB/s, "
        f"{1e6 * rates.launch:.2f} us to start a kernel{eager}. Memory traffic counts every tensor that an operator "
        "reads or writes, as if there were no caches; launches are operators."
    )
    head = [
        "model", "step, ms", "matrix products, ms", "memory traffic, ms", "launches, ms", "largest / step", "GFLOP/s",
    ]  # fmt: skip

    def piece(name: str) -> Callable[[Budget], Iterator[Row]]:
        return lambda budget: rows(Problem(name, device, steps=1), rates)

    return Section("What bounds a step", note, head, {name: piece(name) for name in names})


def rows(problem: Problem, rates: Rates) -> Iterator[Row]:
    counted = traffic(one_step(problem, captured=False))
    flops = problem.step_flops
    seconds = seconds_per_call(one_step(problem, captured=True), problem.device)
    bounds = flops / rates.flops, counted.bytes / rates.bytes, counted.launches * rates.launch
    products, moved, launches = (f"{1e3 * bound:.3f}" for bound in bounds)
    yield [
        problem.model, f"{1e3 * seconds:.3f}", f"{products} ({flops / 1e9:.2f} GFLOP)",
        f"{moved} ({counted.bytes / 1e6:,.1f} MB)", f"{launches} ({counted.launches})",
        f"{max(bounds) / seconds:.0%}", f"{flops / seconds / 1e9:,.1f}",
    ]  # fmt: skip


def one_step(problem: Problem, *, captured: bool) -> Callable[[], None]:
    """Our training step on the first batch, captured if the device supports it and `captured` is true."""
    stepper = our_training(problem, graph_capture(problem.device) if captured else None).stepper
    index = torch.arange(BATCH, device=problem.device)
    assert stepper.samples is not None
    width = stepper.width(stepper.samples.mean_length)
    stepper.prepare({(BATCH, width, 1)})
    return lambda: stepper.step(index, width)


def profile(problem: Problem, count: int = 10) -> Iterator[str]:
    """Yields a table of the operators that take most of an eager step's time."""
    cuda = problem.device.type == "cuda"
    step = one_step(problem, captured=False)
    step()
    activities = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if cuda else [])]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(PROFILED_STEPS):
            step()
        if cuda:
            torch.cuda.synchronize()

    def own(event: Any) -> float:
        return event.self_device_time_total if cuda else event.self_cpu_time_total

    # Kernels are listed in addition to the operators that started them, with the same time; count it once.
    events = [event for event in profiler.key_averages() if event.device_type == torch.autograd.DeviceType.CPU]
    events.sort(key=own, reverse=True)
    total = sum(map(own, events))
    yield from table(
        ["operator", "calls a step", "own time, ms a step", "share"],
        (
            [
                f"`{event.key}`", f"{event.count / PROFILED_STEPS:g}", f"{own(event) / PROFILED_STEPS / 1e3:.3f}",
                f"{own(event) / total:.0%}",
            ]
            for event in events[:count]
        ),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--profile", metavar="MODEL", choices=MODELS)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    set_up_torch(device, Training())
    if arguments.profile:
        for each in profile(Problem(arguments.profile, device, steps=1)):
            print(each)
        return
    names = arguments.models.split(",")
    Document().add(section(names, device), Budget(math.inf, len(names)))


if __name__ == "__main__":
    main()
