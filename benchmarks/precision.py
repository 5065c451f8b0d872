"""Milliseconds of a captured training step by precision and memory format, on a CUDA device.

    python benchmarks/precision.py

A step is forward, backward and fused Adam on one batch of 128 random 3x32x32 images, replayed as a CUDA graph. The
package uses channels-last; channels-first is here for comparison.
"""

from __future__ import annotations

import datetime
from typing import Any

import torch
from torch.nn import functional as F

from warmstart_sim import models
from warmstart_sim.acceleration.graph_capture import CudaGraphCapture
from warmstart_sim.experiment.cell_trainer import set_up_torch
from warmstart_sim.training.optimizers import make_optimizer
from warmstart_sim.training.settings import Optimizer, Training
from warmstart_sim.training.step_time import seconds_per_call

BATCH, CLASSES, IMAGE = 128, 10, (3, 32, 32)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "small_cnn": ("small_cnn", {}),
    "resnet18_w16": ("resnet18", {"width": 16}),
    "resnet18_w64": ("resnet18", {"width": 64}),
}
PRECISIONS = ("float32", "tf32", "bf16")


def main() -> None:
    device = torch.device("cuda:0")
    print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, {datetime.date.today()}\n")
    print("| model | precision | channels-last, ms | channels-first, ms |\n| --- | --- | --- | --- |")
    for name in MODELS:
        for precision in PRECISIONS:
            formats = (torch.channels_last, torch.contiguous_format)
            times = [1000 * step_seconds(name, precision, form, device) for form in formats]
            print(f"| {name} | {precision} | {times[0]:.3f} | {times[1]:.3f} |", flush=True)


def step_seconds(name: str, precision: str, form: torch.memory_format, device: torch.device) -> float:
    """Seconds of one captured step."""
    set_up_torch(device, Training(precision=precision))
    model = models.build(*MODELS[name], IMAGE, CLASSES).to(device, memory_format=form).train()
    inputs = torch.randn(BATCH, *IMAGE, device=device).contiguous(memory_format=form)
    labels = torch.randint(0, CLASSES, (BATCH,), device=device)
    optimizer = make_optimizer(model, Optimizer(), captured=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()

    return seconds_per_call(CudaGraphCapture(device)(step, []), device)


if __name__ == "__main__":
    main()
