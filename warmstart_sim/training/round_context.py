"""Builds the `RoundContext` of a round, for our training loop and for Avalanche's."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

from warmstart_sim.seeding import torch_generator
from warmstart_sim.training.batches import DeviceSamples
from warmstart_sim.training.model_functions import FunctionalModel, SampleSource
from warmstart_sim.types import IntArray, Layout, Round, RoundContext, Split, StateDict


def round_context(
    model: nn.Module,
    layout: Layout,
    source: SampleSource,
    round_: Round,
    *,
    seed: int,
    previous: StateDict | None,
    fresh: StateDict,
    initial: Callable[[], StateDict],
    arrived: Iterable[IntArray] = (),
    evaluation_sets: Callable[[Split | int], tuple[DeviceSamples, torch.Tensor]] | None = None,
    tested_rounds: tuple[int, ...] = (),
) -> RoundContext:
    """The context with which a round's strategy, parts and probes are called.

    Args:
        model: The model that trains; it is copied when the context first evaluates it, and never changed.
        layout: Names of its parameters, blocks and head.
        source: Reads training samples by index.
        round_: Which samples have arrived.
        seed: The experiment's seed.
        previous: The weights that the last round ended with, on the device; None in the first round.
        fresh: A new random initialisation, on the device.
        initial: Returns the initialisation of round 0.
        arrived: Indices of the samples that arrived with each round up to this one; some may have left since.
        evaluation_sets: Returns samples and indices of the training, validation or test set, or of one of
            `tested_rounds`.
        tested_rounds: Indices of the rounds that have test samples of their own.
    """
    return RoundContext(
        round=round_.index,
        layout=layout,
        generator=lambda purpose, index=round_.index: torch_generator(seed, purpose, index),
        previous=previous,
        fresh=fresh,
        initial=initial,
        train=round_.train,
        new=round_.new,
        chunks=tuple(chunk for each in arrived if len(chunk := each[np.isin(each, round_.train)])),
        tested_rounds=tested_rounds,
        functions=FunctionalModel(model, source, evaluation_sets),
    )
