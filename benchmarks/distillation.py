"""What self-distillation costs: step times with a teacher, as multiples of those without, on augmented images.

    python benchmarks/distillation.py [DEVICE]

Steps of three arms alternate: no teacher, a teacher that sees the student's inputs, and one whose logits are cached.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import torch

from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.scenario import plan

MODELS = [
    {"name": "small_cnn", "channels": [16, 32]},
    {"name": "resnet18", "width": 16},
]
PARTS = {
    "none": {},
    "as_student": {"self_distillation": {}},
    "clean": {"self_distillation": {"teacher_inputs": "clean"}},
}
STEPS, BATCH = 20, 125


def main(device: str = "cpu") -> None:
    """Prints the ratios of the median step times."""
    for model in MODELS:
        raw = {
            "name": "cost", "data": {"name": "synthetic", "train_samples": 1000}, "model": model,
            "stream": {"name": "static", "rounds": 2}, "training": {"batch_size": BATCH, "optimizer": {"name": "sgd"}},
            "parts": {"augment": {"random_crop": 4, "horizontal_flip": 0.5}},
            "strategies": {label: {"start": "warm_start", **parts} for label, parts in PARTS.items()},
        }  # fmt: skip
        steps = {}
        for cell in plan(raw, "cost")[1]:
            trainer = CellTrainer(cell, ExecutionSettings(Path(), device=device))
            trainer.begin(trainer.rounds[1], trainer.fresh_weights(7))
            index = torch.from_numpy(trainer.rounds[1].train[:BATCH]).to(device)
            trainer.stepper.prepare({(BATCH, None, 1)})
            trainer.stepper.train_mode()
            steps[cell.arm.label] = lambda stepper=trainer.stepper, index=index: stepper.step(index, None)
        seconds = {label: [] for label in steps}
        for _ in range(STEPS + 1):
            for label, step in steps.items():
                started = time.process_time() if device == "cpu" else time.perf_counter()
                step()
                if device != "cpu":
                    torch.cuda.synchronize()
                now = time.process_time() if device == "cpu" else time.perf_counter()
                seconds[label].append(now - started)
        medians = {label: statistics.median(each[1:]) for label, each in seconds.items()}  # the first one caches
        ratios = ", ".join(f"{label} {each / medians['none']:.2f}" for label, each in medians.items())
        print(f"{model}: {ratios} ({1000 * medians['none']:.1f} ms)")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
