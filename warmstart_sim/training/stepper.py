"""Steps of a model: composed of what is present, and run as they are or, where a recorder is given, replayed."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F

from warmstart_sim.seeding import derive_seed
from warmstart_sim.training.batches import DeviceSamples
from warmstart_sim.training.evaluation import BATCH, BatchMetrics, batch_metrics, score
from warmstart_sim.training.settings import Optimizer, Training
from warmstart_sim.types import Batch, Hooks

Step = Callable[[torch.Tensor, int | None], None]  # the batch's indices, and the length to which its texts are cut
Shape = tuple[int, int | None]  # a batch's size, and that length

CAPTURED_EVALUATION_BATCH = BATCH["cuda"]  # samples of an evaluation batch that is replayed; a shorter one is filled up
TEXT_STEP = 32  # where steps are recorded, texts are cut to a multiple of this, for there is a recording for each width


class GraphCapture(Protocol):
    """Records work that takes nothing and returns nothing."""

    def __call__(self, work: Callable[[], None], generators: Sequence[torch.Generator]) -> Callable[[], None]:
        """Runs `work` a few times, records it, and returns what replays it.

        Args:
            work: It reads and writes tensors that outlive the recording.
            generators: Those that `work` draws from, beside the device's default one; every replay draws anew.

        Raises:
            RuntimeError: The work cannot be recorded, for example because it waits for the device.
        """
        ...


def make_optimizer(model: nn.Module, settings: Optimizer, *, recorded: bool = False) -> torch.optim.Optimizer:
    """A new optimiser over the parameters that train. Fused: one kernel for all tensors, on CPUs too.

    Args:
        model: Its parameters are on their device.
        settings: Name, rate, momentum, weight decay.
        recorded: Whether its steps are recorded: the learning rate is then a tensor, which a replay reads anew.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate = torch.tensor(settings.lr, device=parameters[0].device) if recorded else settings.lr
    decay = settings.weight_decay
    if settings.name == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=settings.momentum, weight_decay=decay, fused=True)
    adam = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
    optimizer = adam(parameters, lr=rate, weight_decay=decay, fused=True, capturable=recorded)
    optimizer._warned_capturable_if_run_uncaptured = True  # warming up is no mistake
    return optimizer


class Stepper:
    """A model on its device, with all that makes its steps: optimiser, running sums, recordings.

    It outlives rounds, and where steps are recorded also cells: weights are copied into the model in place and the
    optimiser's state is set to zero in place, so that what was recorded stays valid.

    Args:
        model: On its device.
        settings: Optimiser and precision are used here.
        recorder: Records steps and evaluation batches; None runs them as they are.
        kind: Equal for steppers whose models and optimisers are alike, but for the learning rate.
        records_steps: Whether the recorder is for steps too; not where another, such as a `Stack`, makes them.

    Attributes:
        optimizer: Its state is that of a new one after `begin`.
        loss_sum: The sum of the losses of all samples since `clear_sums`, on the device.
        correct: How many of them were classified correctly, likewise.
        samples: The training samples of the round.
        hooks: What the arm's parts add to it.
        generator: What its transforms draw from.
        recording_seconds: What was spent on recording so far.
        version: Changes when the samples, the hooks, the optimiser's tensors, or its rate, if that is a number, are
            others than before.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Training,
        graph_capture: GraphCapture | None = None,
        *,
        kind: Hashable = None,
        captures_steps: bool = True,
    ) -> None:
        self.kind = kind
        self.capture_seconds = 0.0
        self.model = model
        self.settings = settings
        self.device = next(model.parameters()).device
        self.graph_capture = graph_capture
        self.optimizer = make_optimizer(model, settings.optimizer, recorded=graph_capture is not None)
        self.loss_sum = torch.zeros((), device=self.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self.samples: DeviceSamples | None = None
        self.hooks: tuple[Hooks, ...] = ()
        self.generator = torch.Generator(self.device)
        self.version = 0
        self._records_steps = captures_steps and graph_capture is not None
        self._step: Step = self._missing
        self._steps: dict[Shape, Step] = {}
        self._metrics: dict[tuple[DeviceSamples, int | None], BatchMetrics] = {}

    def begin(self, samples: DeviceSamples, hooks: Sequence[Hooks]) -> None:
        """A new round: the optimiser starts anew, and the step is composed of what the hooks bring.

        Recordings stay unless the data or the hooks are others; hooks of equal value count as the same.
        """
        _set_to_zero(self.optimizer)
        if samples is not self.samples:
            self._metrics.clear()  # they would keep the samples of all cells so far in memory
        if samples is not self.samples or tuple(hooks) != self.hooks:
            self._steps.clear()
            self.version += 1
            self.samples, self.hooks = samples, tuple(hooks)
            self._step = self._composed()

    def set_learning_rate(self, rate: float) -> None:
        """The rate of the steps to come."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            elif group["lr"] != rate:
                group["lr"] = rate
                self.version += 1

    def seed_augmentation(self, seed: int, round_index: int, epoch: int) -> None:
        """Where the draws of an epoch's transforms begin."""
        self.generator.manual_seed(derive_seed(seed, "augment", round_index, epoch))

    def clear_sums(self) -> None:
        """Sets the running sums to zero."""
        self.loss_sum.zero_()
        self.correct.zero_()

    def width(self, width: int | None) -> int | None:
        """The length to which a batch's texts are cut: as it is, or where steps are recorded the next multiple."""
        if width is None or self.graph_capture is None:
            return width
        assert self.samples is not None
        return min(-(-width // TEXT_STEP) * TEXT_STEP, self.samples.inputs.shape[1])

    def prepare(self, shapes: set[Shape]) -> None:
        """Records the steps for batches of these shapes that are not recorded yet; training is left as it was."""
        for shape in sorted(shapes - self._steps.keys(), key=str):
            self._steps[shape] = self._recorded(shape) if self._records_steps else self._step

    def step(self, index: torch.Tensor, width: int | None) -> None:
        """Trains on one batch."""
        self._steps.get((len(index), width), self._step)(index, width)

    def batch_metrics(self, samples: DeviceSamples) -> BatchMetrics:
        """What counts hits and losses of a batch, replayed where a recorder is given."""
        plain = batch_metrics(self.model, samples)
        if self.graph_capture is None:
            return plain

        def replayed(index: torch.Tensor, width: int | None) -> torch.Tensor:
            key = samples, self.width(width)
            if key not in self._metrics:
                self._metrics[key] = self._captured_metrics(*key, plain)
            return self._metrics[key](index, width)

        return replayed

    def load_optimizer(self, state: dict[str, object]) -> None:
        """Puts back the state of an interrupted round. Its tensors are new ones, so that recordings are made anew.

        It may come from where steps were not recorded, or were made as a stack: the options stay as they are here.
        """
        self.optimizer.load_state_dict({**state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        for parameter, values in self.optimizer.state.items():
            for name, value in values.items():  # the fused kernels walk through memory: it has to lie as the weights do
                if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                    values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        self.version += 1
        self._steps.clear()

    def forget_captures(self) -> None:
        """The model's tensors are others now, so that nothing recorded is valid."""
        self._steps.clear()
        self._metrics.clear()

    def _missing(self, index: torch.Tensor, width: int | None) -> None:
        raise AssertionError("begin() comes before the first step")

    def _composed(self) -> Step:
        """The step, made of what is present; the common case has no branches in it."""
        transforms = [hook.transform for hook in self.hooks if hook.transform]
        loss_terms = [hook.loss_term for hook in self.hooks if hook.loss_term]
        after_step = [hook.after_step for hook in self.hooks if hook.after_step]
        model, optimizer, data, generator = self.model, self.optimizer, self.samples, self.generator
        forward = self._forward()
        assert data is not None

        def finish(loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            self.loss_sum.add_(loss.detach(), alpha=len(labels))
            self.correct.add_((logits.detach().argmax(1) == labels).sum())

        def plain_step(index: torch.Tensor, width: int | None) -> None:
            inputs, labels = data.batch(index, width)
            logits = forward(inputs)
            finish(F.cross_entropy(logits, labels), logits, labels)

        if not (transforms or loss_terms or after_step):
            return plain_step

        def step_with_parts(index: torch.Tensor, width: int | None) -> None:
            batch = Batch(*data.raw_batch(index, width), generator)
            for transform in transforms:
                batch = transform(batch)
            logits = forward(data.finished(batch.inputs))
            loss = F.cross_entropy(logits, batch.labels)
            for term in loss_terms:
                loss = loss + term(batch, logits)
            finish(loss, logits, batch.labels)
            for call in after_step:
                call(model)

        return step_with_parts

    def _forward(self) -> Callable[[torch.Tensor], torch.Tensor]:
        if self.settings.precision != "bf16":
            return self.model

        def autocast(inputs: torch.Tensor) -> torch.Tensor:
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                logits: torch.Tensor = self.model(inputs)
            return logits.float()

        return autocast

    def _recorded(self, shape: Shape) -> Step:
        size, width = shape
        static = torch.zeros(size, dtype=torch.int64, device=self.device)
        step = self._step

        def work() -> None:
            step(static, width)

        self.model.train()
        replay = self._replay(work, "training step")
        if replay is None:
            return step

        def replayed(index: torch.Tensor, width: int | None) -> None:
            static.copy_(index)
            replay()

        return replayed

    def _captured_metrics(self, samples: DeviceSamples, width: int | None, plain: BatchMetrics) -> BatchMetrics:
        static = torch.zeros(CAPTURED_EVALUATION_BATCH, dtype=torch.int64, device=self.device)
        counts = torch.zeros(CAPTURED_EVALUATION_BATCH, dtype=torch.bool, device=self.device)
        result = torch.zeros(2, dtype=torch.float64, device=self.device)

        def work() -> None:
            with torch.no_grad():
                inputs, labels = samples.batch(static, width)
                result.copy_(score(self.model(inputs), labels, counts))

        self.model.eval()
        replay = self._replay(work, "evaluation")
        if replay is None:
            return plain

        def replayed(index: torch.Tensor, width: int | None) -> torch.Tensor:
            static[: len(index)].copy_(index)  # what lies behind are samples of an earlier batch, and count nothing
            counts.copy_(torch.arange(CAPTURED_EVALUATION_BATCH, device=self.device) < len(index))
            replay()
            return result.clone()

        return replayed

    def _replay(self, work: Callable[[], None], what: str) -> Callable[[], None] | None:
        assert self.graph_capture is not None
        started = time.perf_counter()
        try:
            with self.unchanged():
                return self.graph_capture(work, [self.generator])
        except RuntimeError as error:
            reason = str(error).split("\n", 1)[0]
            warnings.warn(f"the {what} cannot be recorded ({reason}); it runs kernel by kernel, slowly", stacklevel=2)
            return None
        finally:
            self.capture_seconds += time.perf_counter() - started

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Puts weights, buffers, optimiser, sums and generators back, in place: a recorder runs what it records."""
        cuda = [self.device] if self.device.type == "cuda" else []
        was_new = not self.optimizer.state
        held = [*self.model.state_dict().values(), *_state_tensors(self.optimizer), self.loss_sum, self.correct]
        before = [tensor.clone() for tensor in held]
        drawn = self.generator.get_state()
        with torch.random.fork_rng(devices=cuda), torch.no_grad():
            try:
                with torch.enable_grad():
                    yield
            finally:  # a recording may fail
                for tensor, value in zip(held, before, strict=True):
                    tensor.copy_(value)
                self.generator.set_state(drawn)
                if was_new:
                    _set_to_zero(self.optimizer)


def _state_tensors(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]


def _set_to_zero(optimizer: torch.optim.Optimizer) -> None:
    """Makes the state that of a new optimiser, in place: all of Adam's and SGD's begins with zeros."""
    for tensor in _state_tensors(optimizer):
        tensor.zero_()
