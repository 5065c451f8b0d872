"""Rounds whose samples the model chooses, at the end of the round before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.registry import STREAMS
from warmstart_sim.seeding import numpy_generator
from warmstart_sim.training.evaluation import BATCH
from warmstart_sim.types import IntArray, Round, RoundContext, StateDict


def model_chooses(trainer: CellTrainer) -> bool:
    """Whether samples of later rounds depend on the models of earlier ones."""
    stream = trainer.cell.stream
    return STREAMS.has_trait(stream.name, "model_chooses") and stream.options["query"] != "random"


def choose_next(trainer: CellTrainer, round_: Round, weights: StateDict) -> None:
    """Replaces the round after `round_` by one in which the samples arrive that the model asks for.

    Its time counts as setup of the next round.

    Args:
        trainer: Its rounds are changed.
        round_: The round that is over.
        weights: The weights that it ended with.
    """
    started = time.perf_counter()
    position = next(place for place, each in enumerate(trainer.rounds) if each.index > round_.index)
    following = trainer.rounds[position]
    candidates, count = np.setdiff1d(trainer.pool, round_.train), len(following.new)
    if count < len(candidates):
        candidates = candidates[_query(trainer, trainer.round_context(round_, weights), candidates, count)]
    train = np.concatenate((round_.train, candidates))
    trainer.rounds[position] = replace(following, train=train, new=candidates)
    trainer.setup_seconds += time.perf_counter() - started


def restore_choices(trainer: CellTrainer, chunks: Sequence[Sequence[int]]) -> None:
    """Sets the samples that arrive with the first rounds to those that were chosen before.

    Args:
        trainer: Its rounds are changed.
        chunks: Indices of the samples that arrived with each round so far.
    """
    train = trainer.pool[:0]
    for position, chunk in enumerate(chunks):
        new = np.array(chunk, dtype=np.int64)
        train = np.concatenate((train, new))
        trainer.rounds[position] = replace(trainer.rounds[position], train=train, new=new)


@torch.no_grad()
def _query(trainer: CellTrainer, context: RoundContext, candidates: IntArray, count: int) -> IntArray:
    """The positions of the candidates that the model asks for."""
    from warmstart_sim.experiment import queries  # it imports scipy

    query = trainer.cell.stream.options["query"]
    weights = context.previous
    assert weights is not None
    logits, features = [], []
    for start in range(0, len(candidates), BATCH[trainer.device.type]):
        inputs, _ = context.samples(candidates[start : start + BATCH[trainer.device.type]])
        logits.append(context.forward(weights, inputs).double().cpu().numpy())
        if query == "badge":
            features.append(context.head_inputs(weights, inputs).double().cpu().numpy())
    if query == "badge":
        generator = numpy_generator(trainer.cell.seed, "badge", context.round)
        return queries.badge(np.concatenate(logits), np.concatenate(features), count, generator)
    chosen: IntArray = {"margin": queries.margin, "entropy": queries.entropy}[query](np.concatenate(logits), count)
    return chosen
