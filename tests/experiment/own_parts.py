"""Strategies and parts as a user might write them, named in scenarios as `tests.experiment.own_parts:NAME`."""

from __future__ import annotations

import dataclasses

import torch

from warmstart_sim.types import Hooks, RoundContext, Start, StateDict


def head_only(previous: StateDict, fresh: StateDict, context: RoundContext) -> Start:
    """The last weights with a fresh head, which alone trains."""
    head = {name for name in fresh if context.layout.in_head(name)}
    weights = {name: fresh[name] if name in head else previous[name] for name in fresh}
    return Start(weights, trainable=head & context.layout.parameters)


def body_of_nothing(previous: StateDict, fresh: StateDict, context: RoundContext) -> Start:
    return Start(previous, trainable=["bodi.weight"])


def nothing(previous: StateDict, fresh: StateDict, context: RoundContext) -> Start:
    return Start(previous, trainable=[])


@dataclasses.dataclass(frozen=True)
class Doubled:
    """Doubles the initialisation before the first round, and every later start."""

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext) -> StateDict:
        return {name: 2 * tensor if name in context.layout.parameters else tensor for name, tensor in previous.items()}

    def prepare_first_round(self, fresh: StateDict, context: RoundContext) -> StateDict:
        return self(fresh, fresh, context)


doubled = Doubled()


class RunningAverage:
    """Keeps a running average of the weights in checkpointed state, and pulls the loss towards its logits."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext) -> Hooks:
        average = {name: context.start[name].clone() for name in fresh}
        state = {"average": average, "steps": 0}
        self.seen.append(average)

        def loss_term(batch, logits):
            return (logits - context.forward(average, batch.model_inputs)).square().mean()

        def after_step(model, optimizer):
            state["steps"] += 1
            with torch.no_grad():
                for name, tensor in model.state_dict().items():
                    if tensor.is_floating_point():
                        average[name].lerp_(tensor, 0.1)
                    else:
                        average[name].copy_(tensor)

        return Hooks(loss_term=loss_term, after_step=after_step, state=state)


class LastRoundTeaches:
    """Pulls the logits towards those of the last round's weights; without state, so that steps can be captured."""

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext) -> Hooks:
        teacher = {name: tensor.clone() for name, tensor in previous.items()}

        def loss_term(batch, logits):
            return (logits - context.forward(teacher, batch.model_inputs)).square().mean()

        return Hooks(loss_term=loss_term)


def fresh_features(previous: StateDict, fresh: StateDict, context: RoundContext) -> Start:
    """Fresh weights, of which only the head trains."""
    head = {name for name in fresh if context.layout.in_head(name)}
    return Start(fresh, trainable=head & context.layout.parameters)


def head_every_other_round(previous: StateDict, fresh: StateDict, context: RoundContext) -> Start:
    """Freezes the body in odd rounds."""
    return head_only(previous, fresh, context) if context.round % 2 else Start(previous)


def what_never_trains(previous: StateDict, fresh: StateDict, context: RoundContext) -> Start:
    return Start(previous, trainable=["0.0.weight"])
