"""What the loop around the model costs: samples/s of ours against three others, as ratios measured in one run.

    python benchmarks/loop_overhead.py            about five minutes on a CPU
    python benchmarks/loop_overhead.py --neighbour    the same with another process busy on one core

All loops train the same model on the same 3x32x32 images with batch 128, Adam and one thread:
  bare        forward, backward, step on batches that are ready; nothing else (the limit)
  ours        the training pass of warmstart_sim: order, gather, normalise, step, running accuracy and loss
  DataLoader  torchvision transforms on PIL images in two loader processes, as most repositories write it
  Avalanche   the Naive strategy on the tensors, without an evaluator
They take turns, and a ratio compares neighbours in time, so that a machine whose speed drifts disturbs them little.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from warmstart_sim import models
from warmstart_sim.results.environment import environment
from warmstart_sim.training.batches import DeviceSamples, normalization
from warmstart_sim.training.loop import RoundData, RoundTraining, make_optimizer
from warmstart_sim.training.settings import Optimizer, Training
from warmstart_sim.types import Samples

MODELS = {"mlp": {}, "small_cnn": {}, "resnet18": {"width": 16}}
SAMPLES = {"mlp": 12_800, "small_cnn": 6_400, "resnet18": 1_280}
BATCH, CLASSES, SHAPE = 128, 10, (3, 32, 32)

Epoch = Callable[[], None]


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, *SHAPE), dtype=np.uint8), generator.integers(0, CLASSES, count)


def fresh(name: str, device: torch.device) -> tuple[nn.Module, torch.memory_format]:
    model = models.build(name, MODELS[name], SHAPE, CLASSES).to(device)
    convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
    form = torch.channels_last if convolves else torch.contiguous_format
    return model.to(memory_format=form).train(), form


def bare(name: str, device: torch.device) -> Epoch:
    model, form = fresh(name, device)
    inputs, labels = images(SAMPLES[name])
    ready = ((torch.from_numpy(inputs).to(device).float() / 255 - 0.5) / 0.25).contiguous(memory_format=form)
    batches = list(zip(ready.split(BATCH), torch.from_numpy(labels).to(device).split(BATCH), strict=True))
    optimizer = make_optimizer(model, Optimizer())

    def epoch() -> None:
        for batch, target in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(batch), target).backward()
            optimizer.step()

    return epoch


def ours(name: str, device: torch.device) -> Epoch:
    model, form = fresh(name, device)
    inputs, labels = images(SAMPLES[name])
    samples = DeviceSamples(
        Samples(inputs, labels), normalization("train", inputs), device, channels_last=form is torch.channels_last
    )
    everything, nothing = torch.arange(len(labels), device=device), torch.arange(0, device=device)
    data = RoundData(samples, everything, nothing, samples, nothing)
    settings = Training(batch_size=BATCH, until={"epochs": 10**6})
    training = RoundTraining(model, data, settings, seed=0, round_index=0)
    return lambda: training.run_epoch() and None


def dataloader(name: str, device: torch.device) -> Epoch:
    from PIL import Image
    from torchvision import transforms

    class PilImages(torch.utils.data.Dataset):
        def __init__(self) -> None:
            self.images, self.labels = images(SAMPLES[name])
            self.transform = transforms.Compose(
                [transforms.ToTensor(), transforms.Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))]
            )

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            picture = Image.fromarray(self.images[index].transpose(1, 2, 0))
            return self.transform(picture), int(self.labels[index])

    model, _ = fresh(name, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    criterion = nn.CrossEntropyLoss()
    loader = torch.utils.data.DataLoader(PilImages(), batch_size=BATCH, shuffle=True, num_workers=2)

    def epoch() -> None:
        right = total = 0.0
        for batch, target in loader:
            batch, target = batch.to(device), target.to(device)
            optimizer.zero_grad()
            logits = model(batch)
            loss = criterion(logits, target)
            loss.backward()
            optimizer.step()
            total += loss.item()
            right += (logits.argmax(1) == target).sum().item()

    return epoch


def avalanche(name: str, device: torch.device) -> Epoch:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from avalanche.benchmarks import benchmark_from_datasets
        from avalanche.benchmarks.utils import as_classification_dataset
        from avalanche.training.supervised import Naive

    model, _ = fresh(name, device)
    inputs, labels = images(SAMPLES[name])
    dataset = torch.utils.data.TensorDataset(
        (torch.from_numpy(inputs).float() / 255 - 0.5) / 0.25, torch.from_numpy(labels)
    )
    dataset.targets = labels.tolist()
    benchmark = benchmark_from_datasets(train=[as_classification_dataset(dataset)])
    strategy = Naive(
        model=model, optimizer=torch.optim.Adam(model.parameters(), lr=0.001), criterion=nn.CrossEntropyLoss(),
        train_mb_size=BATCH, train_epochs=1, device=device, evaluator=None,
    )  # fmt: skip
    experience = next(iter(benchmark.train_stream))
    return lambda: strategy.train(experience, num_workers=0) and None


LOOPS = {"bare": bare, "ours": ours, "DataLoader": dataloader, "Avalanche": avalanche}


def seconds(epoch: Epoch, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    epoch()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


@contextlib.contextmanager
def neighbour(wanted: bool) -> Iterator[None]:
    """A process that keeps one core busy."""
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True) if wanted else None
    if process:
        process.start()
    yield
    if process:
        process.kill()


def _spin() -> None:
    while True:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--neighbour", action="store_true", help="keep another process busy on one core")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.set_num_threads(1)

    where = environment(arguments.device, 1, rehearsal=False)
    print(f"{where['device_name']}, {where['cores']} cores, torch {where['torch']}, {datetime.date.today()}")
    print(f"python benchmarks/loop_overhead.py --repeats {arguments.repeats}{' --neighbour' * arguments.neighbour}\n")
    print("| model | bare, samples/s | ours | DataLoader + PIL | Avalanche Naive | ours / bare (min-max) |")
    print("|---|---|---|---|---|---|")
    with neighbour(arguments.neighbour):
        for name in arguments.models.split(","):
            epochs = {loop: make(name, device) for loop, make in LOOPS.items()}
            for epoch in epochs.values():
                epoch()  # warm-up
            times: dict[str, list[float]] = {loop: [] for loop in LOOPS}
            for _ in range(arguments.repeats):
                for loop, epoch in epochs.items():
                    times[loop].append(seconds(epoch, device))
            rate = {loop: SAMPLES[name] / statistics.median(each) for loop, each in times.items()}
            paired = {loop: [b / t for b, t in zip(times["bare"], times[loop], strict=True)] for loop in LOOPS}
            cells = [
                f"{rate[loop]:,.0f} ({statistics.median(paired[loop]):.2f})"
                for loop in ("ours", "DataLoader", "Avalanche")
            ]
            spread = f"{statistics.median(paired['ours']):.3f} ({min(paired['ours']):.2f}-{max(paired['ours']):.2f})"
            print(f"| {name} | {rate['bare']:,.0f} | {' | '.join(cells)} | {spread} |", flush=True)
    print("\nIn brackets: the median of the ratios to bare, turn by turn.")


if __name__ == "__main__":
    main()
