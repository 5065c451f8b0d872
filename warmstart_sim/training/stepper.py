"""Training steps of a model, made anew for each round, and captured on a GPU."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from warmstart_sim.seeding import derive_seed
from warmstart_sim.training import part_state
from warmstart_sim.training.batch_loss import Forward, batch_loss
from warmstart_sim.training.batches import DeviceSamples
from warmstart_sim.training.captures import GraphCapture, Replay, capture_or_warn, cudnn_benchmark, warn_uncaptured
from warmstart_sim.training.compiling import compiled, warn_not_compiled
from warmstart_sim.training.composition import Composition, Shape, Step, is_captured, same_hooks
from warmstart_sim.training.evaluation import BatchMetrics
from warmstart_sim.training.optimizers import (
    make_optimizer,
    quick_step,
    restore_optimizer,
    set_rate,
    set_to_zero,
    state_tensors,
)
from warmstart_sim.training.precision import usable_precision
from warmstart_sim.training.settings import Training
from warmstart_sim.training.starts import freeze_all_but, train_mode, trains_by_default
from warmstart_sim.training.stepper_metrics import StepperMetrics
from warmstart_sim.types import Hooks

KEPT_COMPOSITIONS = 3  # of hooks: cells of several arms take turns on a stepper
UNCAPTURABLE_STATE = "a part replaces tensors or changes numbers in its state; change tensors in place"
RUNS = (64, 8, 1)  # steps of a small model that are captured together
SMALL = 16  # tensors of parameters: a larger model keeps a GPU busy for longer than the launch of its step takes
TEXT_STEP = 32  # captured steps cut texts to multiples of this: each width needs a graph


@dataclass(frozen=True, slots=True)
class StepRequest:
    """A training step that a training coroutine asks for, or several in a row.

    Attributes:
        stepper: Makes the steps.
        index: The indices of their batches into the training samples, one batch after another, int64 on the device.
        width: The number of tokens to which texts are cut; None for other inputs.
        steps: Their number, with batches of one size.
    """

    stepper: Stepper
    index: torch.Tensor
    width: int | None
    steps: int = 1

    def run(self) -> None:
        """Makes the steps, without those of other models."""
        self.stepper.step(self.index, self.width, self.steps)


class Stepper:
    """A model on its device, with everything that its steps need: optimiser, running sums, captured graphs.

    A stepper outlives rounds, and where steps are captured also cells: weights are copied into the model in place and
    the optimiser's state is set to zero in place, so that captured graphs stay valid.

    Args:
        model: On its device.
        settings: Optimiser and precision are used here.
        graph_capture: Captures steps and evaluation batches; None runs them eagerly.
        kind: Equal for steppers whose models and optimisers are alike, except for the learning rate.
        captures_steps: Whether `prepare` captures steps; if not, because a `Stack` makes most steps, one that is made
            alone is captured when it is first made.
        free_memory: Called when a capture has run out of memory, before it is tried again.

    Attributes:
        optimizer: After `begin`, as good as new.
        trainable: Names of the parameters that train in this round; None for all that train by default.
        loss_sum: The sum of the losses of all labels since `clear_sums`, on the device.
        correct: How many of these labels were predicted correctly, on the device.
        samples: The training samples of the round.
        hooks: The hooks of the arm's parts.
        generator: What transforms draw from.
        capture_seconds: Seconds spent on capturing and compiling so far.
        trains_by_default: Names of the parameters that train unless a start freezes them.
        version: Incremented when samples, hooks or optimiser change, which invalidates captured and stacked steps.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Training,
        graph_capture: GraphCapture | None = None,
        *,
        kind: Hashable = None,
        captures_steps: bool = True,
        free_memory: Callable[[], None] = lambda: None,
    ) -> None:
        self.kind = kind
        self.capture_seconds = 0.0
        self.model = model
        self.settings = settings
        self.device = next(model.parameters()).device
        self.graph_capture = graph_capture
        self.optimizer = make_optimizer(model, settings.optimizer, captured=graph_capture is not None)
        self.trainable: frozenset[str] | None = None
        self.loss_sum = torch.zeros((), device=self.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self.samples: DeviceSamples | None = None
        self.generator = torch.Generator(self.device)
        self.version = 0
        self.trains_by_default = trains_by_default(model)
        self._precision = usable_precision(model, settings.precision)
        self.forward = compiled(model) if settings.compile and self.device.type == "cpu" else None
        self._modules = list(model.modules())
        self._training_modes: list[bool] = []  # of these modules; empty before they are known
        self._attached: list[RemovableHandle] = []  # forward hooks of the round's parts
        self._captures_steps = captures_steps
        self._free_memory = free_memory
        self._composition = Composition((), self._not_begun, [], part_state.Watch([]))
        self._compositions: deque[Composition] = deque(maxlen=KEPT_COMPOSITIONS)  # of the same samples and optimiser
        self._metrics = StepperMetrics(self)

    @property
    def hooks(self) -> tuple[Hooks, ...]:
        """The hooks of the arm's parts."""
        return self._composition.hooks

    def begin(self, samples: DeviceSamples, hooks: Sequence[Hooks], trainable: Collection[str] | None = None) -> None:
        """Prepares a new round: a new optimiser state, and a step composed of what the hooks bring.

        Captured graphs stay valid unless samples, hooks or trainable parameters change; hooks of equal value count as
        the same. Steps of the last few hooks are kept, for arms that take turns.

        Args:
            samples: The training samples.
            hooks: Of the arm's parts.
            trainable: Names of the parameters that train; None for all that train by default.
        """
        names = None if trainable is None else frozenset(trainable)
        if names != self.trainable:
            self._set_trainable(names)
            self._compositions.clear()
        set_to_zero(self.optimizer)
        if samples is not self.samples:
            self.samples = samples
            self._compositions.clear()  # they and the metrics would keep the samples of all cells so far in memory
            self._metrics.clear()
        composition = next((each for each in self._compositions if self._is_valid(each, hooks)), None)
        if composition is not None:
            self._compositions.remove(composition)
        composition = composition or self._compose(tuple(hooks))
        self._compositions.append(composition)  # as the most recent one
        if composition is not self._composition:
            self._composition = composition
            self.version += 1
            self._attach()

    def _is_valid(self, composition: Composition, hooks: Sequence[Hooks]) -> bool:
        """Whether the composed step does what these hooks say; one whose forward hooks were removed does not."""
        was_detached = composition is not self._composition and any(hook.attach for hook in hooks)
        return same_hooks(hooks, composition.hooks) and not was_detached

    def _attach(self) -> None:
        """Removes the forward hooks of the last parts, and registers those of the round's."""
        for handle in self._attached:
            handle.remove()
        self._attached = [handle for hook in self.hooks if hook.attach for handle in hook.attach(self.model)]

    def _set_trainable(self, trainable: frozenset[str] | None) -> None:
        """Freezes the other parameters, and makes an optimiser that holds the trainable ones only."""
        self.trainable = trainable
        self._training_modes = []
        freeze_all_but(self.model, trainable, self.trains_by_default)
        self.model.zero_grad()  # gradients of frozen parameters would stay around for ever
        self.optimizer = make_optimizer(self.model, self.settings.optimizer, captured=self.graph_capture is not None)

    def train_mode(self) -> None:
        """Puts the model into training mode unless it is; frozen BatchNorm stays in evaluation mode."""
        if self._training_modes != [module.training for module in self._modules]:
            train_mode(self.model)
            self._training_modes = [module.training for module in self._modules]

    def evaluation_mode(self) -> None:
        """Puts the model into evaluation mode unless it is; the next `train_mode` ends it."""
        if any(module.training for module in self._modules):
            self.model.eval()

    def set_learning_rate(self, rate: float) -> None:
        """Sets the rate of the next steps."""
        self.version += set_rate(self.optimizer, rate)

    def seed_augmentation(self, seed: int, round_index: int, epoch: int) -> None:
        """Seeds the generator of the transforms for an epoch."""
        self.generator.manual_seed(derive_seed(seed, "augment", round_index, epoch))

    def clear_sums(self) -> None:
        """Sets the running sums to zero."""
        self.loss_sum.zero_()
        self.correct.zero_()

    def width(self, width: int | None) -> int | None:
        """The length to which a batch's texts are cut: `width`, or where steps are captured the next multiple."""
        if width is None or self.graph_capture is None:
            return width
        assert self.samples is not None
        return min(-(-width // TEXT_STEP) * TEXT_STEP, self.samples.inputs.shape[1])

    def requests(self, indices: torch.Tensor, sizes: Sequence[int], widths: Sequence[int | None]) -> list[StepRequest]:
        """The steps on some batches, in their order, after capturing those whose shape is new.

        Args:
            indices: The samples of all batches, concatenated.
            sizes: The sizes of the batches.
            widths: The length to which the texts of each are cut.
        """
        shapes: list[Shape] = []
        for (size, width), alike in itertools.groupby(zip(sizes, widths, strict=True)):
            left = len(list(alike))
            for steps in RUNS if self.makes_runs else (1,):
                count, left = divmod(left, steps)
                shapes += [(size, width, steps)] * count
        self.prepare(set(shapes))
        parts = indices.split([size * steps for size, _, steps in shapes])
        return [StepRequest(self, index, *shape[1:]) for index, shape in zip(parts, shapes, strict=True)]

    @property
    def makes_runs(self) -> bool:
        """Whether steps are captured several at a time: nothing of the host's comes between two, and they are short."""
        captures = self.graph_capture is not None and self._captures_steps and self._composition.capturable
        alone = not self._composition.after_step and self.samples is not None and self.samples.lengths is None
        return captures and alone and len(list(self.model.parameters())) <= SMALL

    def prepare(self, shapes: set[Shape]) -> None:
        """Captures or compiles the steps of new shapes among these; the training does not change."""
        now = self._composition
        outdated = now.watch.changed()  # by a part's `after_epoch`, or because the round was resumed
        if outdated and self.graph_capture is not None:
            now.steps.clear()
        now.watch = part_state.Watch(now.watch.states)
        if self._captures_steps:
            for shape in sorted(shapes - now.steps.keys(), key=str):
                self._new_step(shape)

    def step(self, index: torch.Tensor, width: int | None, steps: int = 1) -> None:
        """Trains on one batch, or on several of one size, one after another."""
        shape = len(index) // steps, width, steps
        step = self._composition.steps.get(shape) or self._new_step(shape)
        step(index, width)
        for call in self._composition.after_step:
            call(self.model, self.optimizer)

    def _new_step(self, shape: Shape) -> Step:
        if self.graph_capture is not None and self._composition.capturable:
            step = self._captured(shape)
        elif self.compiles and shape == (self.settings.batch_size, None, 1):
            step = self._compiled_step()
        else:
            step = self._eager_steps(shape)
        self._composition.steps[shape] = step
        return step

    def _eager_steps(self, shape: Shape) -> Step:
        """The steps of a shape, kernel by kernel."""
        step = self._composition.eager_step
        size, _, steps = shape
        if steps == 1 and (self.device.type != "cuda" or size != self.settings.batch_size):
            return step

        def eager_steps(index: torch.Tensor, width: int | None) -> None:
            with cudnn_benchmark(self.device, size == self.settings.batch_size):
                for batch in index.view(steps, size):
                    step(batch, width)

        return eager_steps

    @property
    def compiles(self) -> bool:
        """Whether full batches are compiled. Compiled code does not see forward hooks that come later."""
        return self.forward is not None and not self._attached

    def _compiled_step(self) -> Step:
        """The step on full batches, compiled; the eager one if it cannot be compiled."""
        eager_step, index = self._composition.eager_step, torch.zeros(self.settings.batch_size, dtype=torch.int64)
        step = self._compose_step(self.hooks, self.forward)
        self.train_mode()
        with self.preserve_state():
            return step if self.runs_compiled(lambda: step(index, None)) else eager_step

    def runs_compiled(self, work: Callable[[], object]) -> bool:
        """Compiles work by running it. If that fails, it warns, and nothing of this stepper is compiled any more."""
        started = time.perf_counter()
        try:
            work()
        except Exception as error:
            warn_not_compiled(error)
            self.forward = None
        self.capture_seconds += time.perf_counter() - started
        return self.forward is not None

    def batch_metrics(self, samples: DeviceSamples) -> BatchMetrics:
        """A function that counts hits and losses of a batch, replayed or compiled as steps are.

        It may leave the model in evaluation mode.
        """
        return self._metrics.of(samples)

    def load_optimizer(self, state: dict[str, object]) -> None:
        """Restores the state of an interrupted round. Its tensors are new, so captured steps are captured again."""
        restore_optimizer(self.optimizer, state)
        self.version += 1
        self._drop_captured_steps()

    def drop_captured_graphs(self) -> None:
        """Drops all captured graphs, because the model's tensors have been replaced."""
        self._drop_captured_steps()
        self._metrics.clear()

    def _drop_captured_steps(self) -> None:
        for each in self._compositions:
            each.steps.clear()

    def _drop_outdated_steps(self) -> None:
        """Drops captured steps when a part has replaced a tensor, or changed a number, that they may have read."""
        now = self._composition
        if now.capturable and now.watch.changed():
            now.capturable = False
            now.steps.clear()
            warn_uncaptured("training step", UNCAPTURABLE_STATE)

    def _not_begun(self, index: torch.Tensor, width: int | None) -> None:
        raise AssertionError("call begin() before the first step")

    def _compose(self, hooks: tuple[Hooks, ...]) -> Composition:
        after_step = [hook.after_step for hook in hooks if hook.after_step]
        read = [hook.state for hook in hooks if hook.state is not None and is_captured(hook)]
        if self.graph_capture is not None and read:
            after_step.append(lambda model, optimizer: self._drop_outdated_steps())
        return Composition(hooks, self._compose_step(hooks), after_step, part_state.Watch(read))

    def _compose_step(self, hooks: Sequence[Hooks], model_forward: Forward | None = None) -> Step:
        assert self.samples is not None
        model, optimizer = self.model, self.optimizer
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        step_optimizer = quick_step(optimizer) if self.graph_capture is None else optimizer.step
        before_step = [hook.before_step for hook in hooks if hook.before_step]
        loss_of = batch_loss(model, self.samples, hooks, self.generator, self._precision, model_forward)

        def step(index: torch.Tensor, width: int | None) -> None:
            loss, logits, labels = loss_of(index, width)
            for parameter in parameters:
                parameter.grad = None
            loss.backward()
            for call in before_step:
                call(model)
            step_optimizer()
            self.loss_sum.add_(loss.detach(), alpha=labels.numel())
            self.correct.add_((logits.detach().argmax(1) == labels).sum())

        return step

    def _captured(self, shape: Shape) -> Step:
        size, width, steps = shape
        static = torch.zeros(steps, size, dtype=torch.int64, device=self.device)
        step = self._composition.eager_step

        def first() -> None:
            step(static[0], width)

        def work() -> None:
            for batch in static:
                step(batch, width)

        self.train_mode()
        replay = self.replay_of(work, "training step", full=size == self.settings.batch_size, warm_up=first)
        if replay is None:
            return self._eager_steps(shape)

        def replayed(index: torch.Tensor, width: int | None) -> None:
            static.copy_(index.view(steps, size))
            replay()

        return replayed

    def replay_of(
        self, work: Callable[[], None], what: str, *, full: bool, warm_up: Callable[[], None] | None = None
    ) -> Replay | None:
        """Captures work, or warns and returns None; `full` says whether batches of this size are most of them."""
        started = time.perf_counter()
        try:
            return capture_or_warn(
                lambda: self._capture(work, warm_up), what, self.device, frequent=full, free_memory=self._free_memory
            )
        finally:
            self.capture_seconds += time.perf_counter() - started

    def _capture(self, work: Callable[[], None], warm_up: Callable[[], None] | None) -> Replay:
        assert self.graph_capture is not None
        now = self._composition
        watch = part_state.Watch(now.watch.states)
        with self.preserve_state():
            replay = self.graph_capture(work, [self.generator], warm_up)
            if watch.changed():
                now.capturable = False
                raise RuntimeError(UNCAPTURABLE_STATE)
            return replay

    @contextlib.contextmanager
    def preserve_state(self) -> Iterator[None]:
        """Restores weights, buffers, optimiser, sums and generators in place: capturing a step runs it."""
        cuda = [self.device] if self.device.type == "cuda" else []
        was_new = not self.optimizer.state
        held = [*self.model.state_dict().values(), *state_tensors(self.optimizer), self.loss_sum, self.correct]
        before = [tensor.clone() for tensor in held]
        states = [(hook.state, part_state.snapshot(hook.state)) for hook in self.hooks if hook.state is not None]
        drawn = self.generator.get_state()
        with torch.random.fork_rng(devices=cuda), torch.no_grad():
            try:
                with torch.enable_grad():
                    yield
            finally:  # capturing may fail
                for tensor, value in zip(held, before, strict=True):
                    tensor.copy_(value)
                for state, saved in states:
                    part_state.restore(state, saved, self.device)
                self.generator.set_state(drawn)
                if was_new:
                    set_to_zero(self.optimizer)
