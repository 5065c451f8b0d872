"""Training loops with the same model, data, batch size and optimiser: ours, its limit, and common alternatives.

    bare        only forward, backward and a fused optimiser's step, torch's own layers, on batches prepared before
    captured    the bare step replayed as a CUDA graph (CUDA only): the limit there
    compiled    the bare step, on CUDA the captured one, with the model compiled by torch.compile (with --compile)
    ours        warmstart_sim: order, gathering, normalising, step, running accuracy and loss
    ours, bf16  the same with `precision: bf16`; on a CPU with --compile also with `compile: true`, in both precisions
    eager       the same written by hand on device tensors: default Adam, sums with .item() after each step
    DataLoader  torchvision's transforms on PIL images (texts: tokens) in two loader processes
    Avalanche   its Naive strategy on tensors, without an evaluator
    Lightning   its Trainer on tensors, without logger, checkpoints and progress bar; the accuracy is logged per epoch
    skorch      its NeuralNetClassifier on tensors, without callbacks and validation

`bare`, `captured`, `compiled` and `ours` use channels-last where the package does. Lightning and skorch are in the
extra `benchmarks`; where they are not installed, they are left out.
"""

from __future__ import annotations

import functools
import importlib.util
import statistics
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from document import Budget, Row, Section
from rates import device_rates
from torch import nn
from torch.nn import functional as F

from warmstart_sim import models
from warmstart_sim.acceleration.graph_capture import CudaGraphCapture, graph_capture
from warmstart_sim.models._layers import Flatten, GlobalAveragePool
from warmstart_sim.registry import MODELS as REGISTERED
from warmstart_sim.seeding import scoped_torch_seed
from warmstart_sim.training.batches import DeviceSamples, normalization
from warmstart_sim.training.captures import GraphCapture
from warmstart_sim.training.flops import training_flops
from warmstart_sim.training.loop import RoundData, RoundTraining
from warmstart_sim.training.optimizers import make_optimizer
from warmstart_sim.training.settings import Optimizer, Training
from warmstart_sim.training.step_time import timed
from warmstart_sim.training.stepper import Stepper
from warmstart_sim.types import Samples

BATCH, CLASSES, IMAGE = 128, 10, (3, 32, 32)
VOCABULARY, TOKENS = 1000, 100
CENTRE, SCALE = 0.5, 0.25  # a common normalisation of pixels in [0, 1]

Epoch = Callable[[], None]


@dataclass(frozen=True)
class Model:
    """A model, and the number of steps per epoch on each device: few, but enough to be timed."""

    name: str
    options: dict[str, object]
    cpu_steps: int
    cuda_steps: int


MODELS = {
    "logistic_regression": Model("logistic_regression", {}, 100, 200),
    "mlp": Model("mlp", {}, 100, 200),
    "small_cnn": Model("small_cnn", {}, 25, 200),
    "bilstm": Model("bilstm", {"hidden": 64, "layers": 1, "dropout": 0.0}, 5, 50),
    "resnet18_w16": Model("resnet18", {"width": 16}, 5, 100),
    "resnet18_w64": Model("resnet18", {"width": 64}, 1, 40),
}


@dataclass(frozen=True)
class Problem:
    """The model, data and device of all loops.

    Attributes:
        model: A name in MODELS.
        steps: Batches per epoch; None for the model's default.
    """

    model: str
    device: torch.device
    steps: int | None = None

    @cached_property
    def texts(self) -> bool:
        return REGISTERED.has_trait(MODELS[self.model].name, "tokens")

    @cached_property
    def samples(self) -> Samples:
        """Random images (n, 3, 32, 32) or, for models that read texts, tokens (n, 100), and labels."""
        model = MODELS[self.model]
        count = BATCH * (self.steps or (model.cuda_steps if self.device.type == "cuda" else model.cpu_steps))
        generator = np.random.default_rng(0)
        labels = generator.integers(0, CLASSES, count)
        if self.texts:
            return Samples(generator.integers(1, VOCABULARY, (count, TOKENS)), labels)
        return Samples(generator.integers(0, 256, (count, *IMAGE), dtype=np.uint8), labels)

    @cached_property
    def step_flops(self) -> int:
        """Floating-point operations of one step."""
        inputs, _ = self.on_device()
        return BATCH * training_flops(self.network(channels_last=True), self.normalized(inputs[:2]))

    def on_device(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All inputs, as stored, and labels."""
        inputs, labels = (torch.from_numpy(array) for array in (self.samples.inputs, self.samples.labels))
        return inputs.to(self.device), labels.to(self.device)

    def normalized(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs if self.texts else (inputs.float() / 255 - CENTRE) / SCALE

    def network(self, *, channels_last: bool) -> nn.Module:
        """Builds the model, always with the same fresh weights; channels-last only if the package uses it."""
        shape = self.samples.inputs.shape[1:]
        with scoped_torch_seed(0, "init"):
            model = models.build(MODELS[self.model].name, MODELS[self.model].options, shape, CLASSES, VOCABULARY)
        form = torch.channels_last if channels_last and models.takes_channels_last(model) else torch.contiguous_format
        return model.to(self.device, memory_format=form).train()


def bare(problem: Problem, model: nn.Module | None = None) -> Epoch:
    model = model or with_torchs_layers(problem.network(channels_last=True))
    batches = ready_batches(problem, model)
    step = bare_step(model, capturable=False)

    def epoch() -> None:
        for inputs, labels in batches:
            step(inputs, labels)

    return epoch


def with_torchs_layers(model: nn.Module) -> nn.Module:
    """Replaces layers of ours, whose backward pass is quicker on a CPU, by torch's own."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Flatten):
                setattr(module, name, nn.Flatten())
            elif isinstance(child, GlobalAveragePool):
                setattr(module, name, nn.AdaptiveAvgPool2d(1))
    return model


def captured(problem: Problem, model: nn.Module | None = None) -> Epoch:
    model = model or problem.network(channels_last=True)
    batches = ready_batches(problem, model)
    inputs, labels = batches[0]
    step = bare_step(model, capturable=True)
    replay = CudaGraphCapture(problem.device)(lambda: step(inputs, labels), [])

    def epoch(alive: object = (step, batches)) -> None:  # a graph does not keep what it reads and writes
        for _ in batches:
            replay()

    return epoch


def compiled(problem: Problem) -> Epoch:
    model = problem.network(channels_last=True)
    if problem.device.type != "cuda":
        return bare(problem, torch.compile(model))
    quick = torch.compile(model, mode="max-autotune-no-cudagraphs")
    inputs, labels = ready_batches(problem, model)[0]
    F.cross_entropy(quick(inputs), labels).backward()  # compiles before the capture
    return captured(problem, quick)


def ready_batches(problem: Problem, model: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Normalised batches in the model's memory format."""
    inputs, labels = problem.on_device()
    ready = problem.normalized(inputs)
    if models.takes_channels_last(model):
        ready = ready.contiguous(memory_format=torch.channels_last)
    return list(zip(ready.split(BATCH), labels.split(BATCH), strict=True))


def bare_step(model: nn.Module, *, capturable: bool) -> Callable[[torch.Tensor, torch.Tensor], None]:
    optimizer = make_optimizer(model, Optimizer(), captured=capturable)

    def step(inputs: torch.Tensor, labels: torch.Tensor) -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    return step


def ours(problem: Problem, **settings: object) -> Epoch:
    training = our_training(problem, graph_capture(problem.device), **settings)
    return lambda: training.run_epoch() and None


def our_training(problem: Problem, record: GraphCapture | None, **settings: object) -> RoundTraining:
    """A round's training without an end."""
    model = problem.network(channels_last=True)
    normalize = normalization("train", problem.samples.inputs)
    samples = DeviceSamples(problem.samples, normalize, problem.device, models.takes_channels_last(model))
    everything = torch.arange(len(samples), device=problem.device)
    nothing = everything[:0]
    stepper = Stepper(model, Training(batch_size=BATCH, until={"epochs": 10**9}, **settings), record)
    return RoundTraining(stepper, RoundData(samples, everything, nothing, samples, nothing), seed=0, round_index=0)


def eager(problem: Problem) -> Epoch:
    inputs, labels = problem.on_device()
    step = usual_step(problem.network(channels_last=False))

    def epoch() -> None:
        right = total = 0.0
        for index in torch.randperm(len(labels), device=problem.device).split(BATCH):
            loss, hits = step(problem.normalized(inputs[index]), labels[index])
            total += loss * len(index)
            right += hits

    return epoch


def usual_step(model: nn.Module) -> Callable[[torch.Tensor, torch.Tensor], tuple[float, float]]:
    """A typical hand-written step, which synchronises with the device; returns the loss and the correct predictions."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    criterion = nn.CrossEntropyLoss()

    def step(inputs: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
        optimizer.zero_grad()
        logits = model(inputs)
        loss = criterion(logits, labels)
        loss.backward()
        optimizer.step()
        return loss.item(), (logits.argmax(1) == labels).sum().item()

    return step


class Items(torch.utils.data.Dataset):
    """Single samples: an image as a normalised tensor, converted by PIL, or a text's tokens."""

    def __init__(self, samples: Samples, texts: bool) -> None:
        from torchvision import transforms

        self.inputs, self.labels = samples.inputs, samples.labels
        self.transform = None if texts else transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize((CENTRE,) * 3, (SCALE,) * 3)]
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        label = int(self.labels[index])
        if self.transform is None:
            return torch.from_numpy(self.inputs[index]), label
        from PIL import Image

        return self.transform(Image.fromarray(self.inputs[index].transpose(1, 2, 0))), label


def dataloader(problem: Problem) -> Epoch:
    step = usual_step(problem.network(channels_last=False))
    items = Items(problem.samples, problem.texts)
    loader = torch.utils.data.DataLoader(items, batch_size=BATCH, shuffle=True, num_workers=2)

    def epoch() -> None:
        right = total = 0.0
        for inputs, labels in loader:
            loss, hits = step(inputs.to(problem.device), labels.to(problem.device))
            total += loss * len(labels)
            right += hits

    return epoch


def tensors(problem: Problem) -> torch.utils.data.TensorDataset:
    """Normalised inputs and labels in main memory."""
    inputs = problem.normalized(torch.from_numpy(problem.samples.inputs))
    return torch.utils.data.TensorDataset(inputs, torch.from_numpy(problem.samples.labels))


def avalanche(problem: Problem) -> Epoch:
    model = problem.network(channels_last=False)
    dataset = tensors(problem)
    dataset.targets = problem.samples.labels.tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from avalanche.benchmarks import benchmark_from_datasets
        from avalanche.benchmarks.utils import as_classification_dataset
        from avalanche.training.supervised import Naive

        strategy = Naive(
            model=model, optimizer=torch.optim.Adam(model.parameters(), lr=0.001), criterion=nn.CrossEntropyLoss(),
            train_mb_size=BATCH, train_epochs=1, device=problem.device, evaluator=None,
        )  # fmt: skip
    benchmark = benchmark_from_datasets(train=[as_classification_dataset(dataset)])
    experience = next(iter(benchmark.train_stream))
    return lambda: strategy.train(experience, num_workers=0) and None


def lightning(problem: Problem) -> Epoch:
    import lightning
    from torchmetrics.classification import MulticlassAccuracy

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = problem.network(channels_last=False)
            self.accuracy = MulticlassAccuracy(CLASSES, average="micro")

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=0.001)

        def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
            inputs, labels = batch
            logits = self.network(inputs)
            self.accuracy(logits, labels)
            self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)
            return F.cross_entropy(logits, labels)

    class TakeTurns(lightning.Callback):
        """Trains an epoch whenever it is asked to: `fit` runs in a thread, so that it is set up once."""

        def __init__(self) -> None:
            self.begin, self.ended = threading.Semaphore(0), threading.Semaphore(0)

        def on_train_epoch_start(self, *_: object) -> None:
            self.begin.acquire()

        def on_train_epoch_end(self, *_: object) -> None:
            self.ended.release()

    turns = TakeTurns()
    trainer = lightning.Trainer(
        accelerator=problem.device.type, devices=1, max_epochs=-1, callbacks=[turns], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(tensors(problem), batch_size=BATCH, shuffle=True)
    threading.Thread(target=trainer.fit, args=(Module(), loader), daemon=True).start()

    def epoch() -> None:
        turns.begin.release()
        turns.ended.acquire()

    return epoch


def skorch(problem: Problem) -> Epoch:
    from skorch import NeuralNetClassifier
    from skorch.callbacks import PassthroughScoring

    net = NeuralNetClassifier(
        problem.network(channels_last=False), criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=0.001,
        batch_size=BATCH, iterator_train__shuffle=True, max_epochs=1, train_split=None, verbose=0,
        callbacks=[("accuracy", PassthroughScoring("train_loss", on_train=True))], device=problem.device,
    )  # fmt: skip
    dataset = tensors(problem)
    return lambda: net.partial_fit(dataset, None) and None


LOOPS = {
    "captured": captured, "bare": bare, "compiled": compiled, "ours": ours,
    "ours, bf16": functools.partial(ours, precision="bf16"), "ours, compiled": functools.partial(ours, compile=True),
    "ours, compiled, bf16": functools.partial(ours, compile=True, precision="bf16"),
    "eager": eager, "DataLoader": dataloader, "Avalanche": avalanche, "Lightning": lightning, "skorch": skorch,
}  # fmt: skip


def section(
    names: Sequence[str], device: torch.device, *, repeats: int, steps: int | None = None, with_compiled: bool = False
) -> Section:
    """Compares all loops with the one that only trains, one model per row."""
    cuda = device.type == "cuda"
    left_out = {loop for loop in ("Lightning", "skorch") if importlib.util.find_spec(loop.lower()) is None}
    left_out |= {loop for loop in LOOPS if "compiled" in loop and (not with_compiled or (cuda and "ours" in loop))}
    loops = [loop for loop in LOOPS if loop not in left_out and (cuda or loop != "captured")]
    limit = loops[0]
    note = (
        f"One model trained alone: samples/s of each loop (described in benchmarks/loops.py) divided by those of "
        f"`{limit}`, which only trains, in float32 and without compiling. The loops take turns; a ratio is the median "
        f"of the ratios per turn, for ours with the lowest and the highest in brackets. Behind the samples/s of "
        f"`{limit}` and behind the best loop of ours is the share of the FLOP/s that a large matrix product reaches in "
        f"float32. Batch {BATCH}, Adam, {CLASSES} classes; 3x32x32 images, or texts of {TOKENS} tokens for bilstm."
    )
    head = ["model", f"{limit}, samples/s (of the peak)", *loops[1:], "best of ours, of the peak", "turns"]

    def piece(name: str) -> Callable[[Budget], Iterator[Row]]:
        return lambda budget: rows(Problem(name, device, steps), loops, repeats, budget)

    return Section("One cell at a time", note, head, {name: piece(name) for name in names})


def rows(problem: Problem, loops: Sequence[str], repeats: int, budget: Budget) -> Iterator[Row]:
    epochs, errors = warmed_up(problem, loops)
    times = take_turns(epochs, problem.device, repeats, budget)
    limit, *others = loops
    if limit not in times:
        raise RuntimeError("; ".join(errors))
    ratios = {loop: [base / own for base, own in zip(times[limit], times[loop], strict=True)] for loop in times}
    middle = {loop: statistics.median(each) for loop, each in ratios.items()}
    shown = {loop: f"{each:.2f}" for loop, each in middle.items()}
    shown["ours"] = f"{middle['ours']:.3f} ({min(ratios['ours']):.2f}-{max(ratios['ours']):.2f})"
    rate = len(problem.samples) / statistics.median(times[limit])
    share = rate / BATCH * problem.step_flops / device_rates(problem.device).flops
    best = max(each for loop, each in middle.items() if loop.startswith("ours"))
    yield [
        problem.model, f"{rate:,.0f} ({share:.0%})", *(shown.get(loop, "failed") for loop in others),
        f"{best * share:.0%}", str(len(times[limit])),
    ]  # fmt: skip
    if errors:
        raise RuntimeError("; ".join(errors))


def warmed_up(problem: Problem, loops: Sequence[str]) -> tuple[dict[str, Epoch], list[str]]:
    """Runs one epoch of each loop, for compilation and capture; returns the loops that work and the others' errors."""
    epochs, errors = {}, []
    for loop in loops:
        try:
            epoch = LOOPS[loop](problem)
            epoch()
            epochs[loop] = epoch
        except Exception as error:
            if loop == "ours":
                raise
            errors.append(f"{loop}: {type(error).__name__}: {error}")
    return epochs, errors


def take_turns(
    epochs: Mapping[str, Epoch], device: torch.device, repeats: int, budget: Budget
) -> dict[str, list[float]]:
    """Times one epoch of each loop per turn, until the time is used up, but at least one turn."""
    times: dict[str, list[float]] = {loop: [] for loop in epochs}
    for _ in range(repeats):
        for loop, epoch in epochs.items():
            with timed(device) as clock:
                epoch()
            times[loop].append(clock.seconds)
        if budget.over:
            break
    return times
