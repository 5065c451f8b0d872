"""Keeps samples, and steppers with their captured graphs, on the device from cell to cell."""

from __future__ import annotations

import gc
import hashlib
import weakref
from collections import deque
from collections.abc import Callable, Collection, Hashable, Sized
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from warmstart_sim.acceleration.graph_capture import graph_capture
from warmstart_sim.training.batches import DeviceSamples, Normalization, Normalize, normalization
from warmstart_sim.training.captures import GraphCapture
from warmstart_sim.training.flops import training_flops
from warmstart_sim.training.settings import Training
from warmstart_sim.training.stepper import Stepper
from warmstart_sim.types import Samples

T = TypeVar("T")

KEPT_STEPPERS = 32  # idle ones, of all kinds together; those that were given back first are dropped
BUDGET = 0.5  # of a GPU's memory: if torch has reserved more, what has been idle for longest is dropped
KEPT_SAMPLE_SETS = 2  # stay on the device when no cell uses them: a training and a test set


class DeviceCache:
    """Lends steppers to cells, one cell at a time, and keeps one copy of the samples on the device for all cells.

    With graph capture, a stepper that was given back goes to the next cell of its kind, graphs included. Without it,
    every cell gets a new model and stepper.

    Args:
        device: Such as "cpu" or "cuda:0".
        make_capture: Makes the graph capture of each stepper; None turns capturing off.
        captures_steps: Whether steppers capture their steps ahead, or only when one is made outside a stack.
    """

    def __init__(
        self,
        device: str,
        make_capture: Callable[[torch.device], GraphCapture | None] = graph_capture,
        captures_steps: bool = True,
    ) -> None:
        self.device = torch.device(device)
        self._make_capture = make_capture
        self._captures_steps = captures_steps
        self._idle: deque[Stepper] = deque(maxlen=KEPT_STEPPERS)
        self._samples: weakref.WeakValueDictionary[Hashable, DeviceSamples] = weakref.WeakValueDictionary()
        self._recent: deque[DeviceSamples] = deque(maxlen=KEPT_SAMPLE_SETS)
        self._normalizations: weakref.WeakKeyDictionary[Samples, dict[Normalize, Normalization | None]]
        self._normalizations = weakref.WeakKeyDictionary()
        self._flops: dict[Hashable, int] = {}

    def borrow(self, kind: Hashable, settings: Training, build: Callable[[], nn.Module]) -> Stepper:
        """Lends a stepper for a cell's model.

        Args:
            kind: Equal for models of the same architecture and shapes.
            settings: The cell's training settings; those that a captured graph depends on are added to the kind.
            build: Makes the model, on the device.
        """
        # Captured steps read the learning rate from a tensor, and there is a graph for each batch size.
        kind = kind, settings.optimizer.model_copy(update={"lr": 1.0}), settings.precision
        for stepper in reversed(self._idle):
            if stepper.kind == kind:
                self._idle.remove(stepper)
                stepper.settings = settings
                return stepper
        graph_capture = self.graph_capture()
        if graph_capture is None:  # models of different weight decay can be stacked: it is no constant of a graph
            optimizer = settings.optimizer.model_copy(update={"lr": 1.0, "weight_decay": 0.0, "decay_biases": None})
            kind = kind[0], optimizer, settings.precision
        return Stepper(
            self._with_memory(build), settings, graph_capture, kind=kind, captures_steps=self._captures_steps,
            free_memory=self.free_memory,
        )  # fmt: skip

    def give_back(self, stepper: Stepper) -> None:
        """Takes back a stepper that `borrow` lent, for the next cell."""
        if stepper.graph_capture is not None:
            self._idle.append(stepper)
            self.keep_to_budget(self._idle, self._idle.popleft)

    def free_memory(self) -> None:
        """Drops the idle steppers, with their graphs, and returns the memory that torch keeps for later."""
        self._idle.clear()
        self._release()

    def keep_to_budget(self, kept: Sized, drop_oldest: Callable[[], object]) -> None:
        """Drops the oldest of some things on the device, but not the last, while they hold too much of its memory."""
        while len(kept) > 1 and self._is_over_budget():
            drop_oldest()
            self._release()

    def _is_over_budget(self) -> bool:
        if self.device.type != "cuda":
            return False
        _, total = torch.cuda.mem_get_info(self.device)
        return torch.cuda.memory_reserved(self.device) > BUDGET * total

    def _release(self) -> None:
        gc.collect()  # steppers and their captured steps refer to each other
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _with_memory(self, make: Callable[[], T]) -> T:
        """Calls `make`, again after memory was freed if it runs out of it."""
        try:
            return make()
        except torch.OutOfMemoryError:
            pass  # what the error's traceback holds is freed first
        self.free_memory()
        return make()

    def flops(self, stepper: Stepper, inputs: torch.Tensor, trainable: Collection[str] | None = None) -> int:
        """FLOPs of training on one sample, counted once for models that are alike and inputs of one shape.

        Args:
            stepper: With the model.
            inputs: At least two normalised inputs.
            trainable: Names of the parameters that train; None for all that train by default.
        """
        names = stepper.trains_by_default if trainable is None else stepper.trains_by_default & frozenset(trainable)
        key = stepper.kind, inputs.shape[1:], names
        if key not in self._flops:
            self._flops[key] = training_flops(stepper.model, inputs, names)
        return self._flops[key]

    def graph_capture(self) -> GraphCapture | None:
        """A new graph capture, or None where nothing is captured."""
        return self._make_capture(self.device)

    def normalization(self, kind: Normalize, samples: Samples) -> Normalization | None:
        """The normalisation called `kind` for these training samples; their statistics are computed once."""
        known = self._normalizations.setdefault(samples, {})
        if kind not in known:
            known[kind] = normalization(kind, samples.inputs)
        return known[kind]

    def samples(self, samples: Samples, normalize: Normalization | None, channels_last: bool) -> DeviceSamples:
        """The samples on the device, shared by all cells that normalise them alike; the last two sets stay there.

        Samples with the same inputs and other labels, as with label noise, share the inputs.
        """
        constants = normalize and (*normalize.scale.flatten().tolist(), *normalize.shift.flatten().tolist())
        key: Hashable = (id(samples.inputs), constants, channels_last)
        found = self._samples.get(key)
        if found is None:
            if len(self._recent) == KEPT_SAMPLE_SETS:
                self._recent.popleft()  # free it first: both together may not fit
            found = self._kept(
                key, self._with_memory(lambda: DeviceSamples(samples, normalize, self.device, channels_last))
            )
            self._recent.append(found)
        if np.array_equal(found.source.labels, samples.labels):
            return found
        key = key, hashlib.blake2b(samples.labels.tobytes()).digest()
        relabelled = self._samples.get(key)
        return self._kept(key, found.with_labels_of(samples)) if relabelled is None else relabelled

    def _kept(self, key: Hashable, samples: DeviceSamples) -> DeviceSamples:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # other slots have streams of their own, which do not wait for this
        self._samples[key] = samples
        return samples
