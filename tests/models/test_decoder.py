"""The decoder-only text model: against its formula, what it can see, and what it learns of a known chain."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.experiment.test_experiment import cells_of, result
from warmstart_sim import models
from warmstart_sim.datasets.markov_text import chain, draw
from warmstart_sim.errors import WarmstartError
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.models import build
from warmstart_sim.registry import STRATEGIES
from warmstart_sim.seeding import numpy_generator, scoped_torch_seed
from warmstart_sim.training.batches import DeviceSamples
from warmstart_sim.training.evaluation import evaluate, hits_and_loss, train_accuracy
from warmstart_sim.training.loop import RoundData, RoundTraining, train
from warmstart_sim.training.model_functions import FunctionalModel
from warmstart_sim.training.settings import Training
from warmstart_sim.training.stepper import Stepper
from warmstart_sim.types import RoundContext

LENGTH, SYMBOLS = 8, 5
CHAIN = chain(SYMBOLS, 1, 0.3, numpy_generator(0, "test"))
TEXTS = draw(CHAIN, LENGTH, 300, numpy_generator(1, "test"))
UNSEEN = draw(CHAIN, LENGTH, 500, numpy_generator(2, "test"))
CPU = torch.device("cpu")


def decoder(length: int = LENGTH, **options) -> torch.nn.Module:
    with scoped_torch_seed(0, "init"):
        return build("decoder", {"width": 12, "heads": 3, **options}, (length,), SYMBOLS, SYMBOLS)


def test_it_is_the_published_formula():
    model = decoder().eval()
    tokens = torch.from_numpy(TEXTS.inputs[:3])
    z = model.embedding.token.weight[tokens] + model.embedding.position
    later = torch.full((LENGTH, LENGTH), -math.inf).triu(1)
    for layer in (model.layer1, model.layer2):
        query, key, value = layer.queries_keys_values(layer.norm1(z)).chunk(3, dim=-1)
        query, key, value = (each.unflatten(-1, (3, 4)).transpose(1, 2) for each in (query, key, value))
        weights = (query @ key.transpose(-1, -2) / 2 + later).softmax(-1)
        z = z + layer.projection((weights @ value).transpose(1, 2).flatten(2))
        z = z + layer.linear2(F.gelu(layer.linear1(layer.norm2(z))))
    torch.testing.assert_close(model(tokens), (model.norm(z) @ model.head.weight.T).transpose(1, 2))


def test_no_position_sees_a_later_one_and_shorter_texts_are_the_beginning_of_longer_ones():
    model = decoder().eval()
    tokens = torch.from_numpy(TEXTS.inputs[:4])
    logits = model(tokens)
    changed = tokens.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % SYMBOLS
    assert torch.equal(model(changed)[..., :5], logits[..., :5])
    assert not torch.isclose(model(changed)[..., 5:], logits[..., 5:]).all(1).any()
    torch.testing.assert_close(model(tokens[:, :3]), logits[..., :3])


def test_a_tied_head_is_the_tokens_weight_and_counts_as_the_head():
    model = decoder(tied=True)
    assert model.head.weight is model.embedding.token.weight
    layout = models.layout(model)
    assert layout.blocks == ("embedding", "layer1", "layer2")
    previous = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    fresh = {name: torch.ones_like(tensor) for name, tensor in previous.items()}
    context = RoundContext(1, layout, lambda purpose, index=1: torch.Generator())
    model.load_state_dict(STRATEGIES.get("head")()(previous, fresh, context))
    assert model.embedding.token.weight.eq(1).all()
    assert model.embedding.position.eq(0).all()
    with pytest.raises(WarmstartError, match="tied: 4 classes cannot share the vectors of 5"):
        build("decoder", {"tied": True}, (LENGTH,), 4, 5)


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"heads": 5}, (LENGTH,), "heads: found 5; a width of 64 needs a divisor"),
        ({}, (1, 8, 8), r"needs tokens \(length,\) .* one input has shape \(1, 8, 8\)"),
    ],
)
def test_what_it_cannot_be_built_for_is_refused(options, shape, message):
    with pytest.raises(WarmstartError, match=f"model 'decoder'.*{message}"):
        build("decoder", options, shape, SYMBOLS, SYMBOLS)


# What has one label for each sample elsewhere has one for each position here.


def test_accuracy_and_loss_are_means_over_all_positions():
    model, samples, index = decoder(), DeviceSamples(TEXTS, None, CPU), torch.arange(290)
    logits, labels = model(torch.from_numpy(TEXTS.inputs[:290])), torch.from_numpy(TEXTS.labels[:290])
    hits = (logits.argmax(1) == labels).double().mean().item()
    losses = [F.cross_entropy(logits[..., t], labels[:, t]).item() for t in range(LENGTH)]
    accuracy, loss = evaluate(model, samples, index)
    assert accuracy == pytest.approx(hits)
    assert loss == pytest.approx(np.mean(losses))
    assert train_accuracy(model, samples, index, at_least=accuracy) == accuracy
    assert train_accuracy(model, samples, index, at_least=accuracy + 1e-9) is None
    mask = torch.arange(290) < 2
    expected = hits_and_loss(logits[:2], labels[:2])
    torch.testing.assert_close(hits_and_loss(logits, labels, mask), expected)


def test_gradients_are_those_of_the_mean_loss():
    model, index = decoder(), np.arange(200)
    found = FunctionalModel(model, DeviceSamples(TEXTS, None, CPU)).gradients(model.state_dict(), index)
    inputs, labels = torch.from_numpy(TEXTS.inputs[index]), torch.from_numpy(TEXTS.labels[index])
    F.cross_entropy(model(inputs).transpose(1, 2).flatten(0, 1), labels.flatten()).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-6, rtol=1e-4)


def test_its_perplexity_comes_near_that_of_the_chain_and_is_not_below_it():
    model, samples = decoder(depth=1), DeviceSamples(TEXTS, None, CPU)
    settings = Training(optimizer={"lr": 0.01}, batch_size=25, until={"epochs": 8})
    everything = torch.arange(len(TEXTS))
    training = RoundTraining(
        Stepper(model, settings), RoundData(samples, everything, everything[:0], samples, everything), seed=0,
        round_index=0,
    )  # fmt: skip
    rows = train(training)
    lowest = -np.log(CHAIN[UNSEEN.inputs, UNSEEN.labels]).mean()
    _, loss = evaluate(model, DeviceSamples(UNSEEN, None, CPU), torch.arange(len(UNSEEN)))
    assert lowest < loss < 1.05 * lowest
    assert rows[0]["running_train_loss"] == pytest.approx(math.log(SYMBOLS), abs=0.4)
    assert rows[-1]["running_train_loss"] == pytest.approx(lowest, rel=0.1)


# In scenarios.

SCENARIO = {
    "name": "text",
    "data": {"name": "markov_text", "length": 6, "train_samples": 60, "test_samples": 20},
    "stream": {"name": "online", "chunk_size": 30},
    "model": {"name": "decoder", "width": 8, "heads": 2, "depth": 1},
    "training": {"batch_size": 16, "until": {"epochs": 2}},
    "strategies": {"shrink_perturb": {}},
}


def test_perplexity_is_beside_accuracy_and_is_that_of_the_loss(tmp_path):
    (cell,) = cells_of({**SCENARIO, "measure": {"each_round": ["perplexity", "margins"], "each_epoch": ["perplexity"]}})
    found = result(cell, tmp_path, ExecutionSettings(tmp_path))
    for row in found["rounds"]:
        assert row["test_perplexity"] == pytest.approx(math.exp(row["test_loss"]))
        assert row["train_perplexity_at_start"] > row["train_perplexity"] > 1
        assert row["validation_perplexity"] is None
        assert -1 <= row["margin_q0"] <= row["margin_q100"] <= 1
    assert found["epochs"][-1]["test_perplexity"] == found["rounds"][-1]["test_perplexity"]


@pytest.mark.parametrize("start", STRATEGIES.names())
def test_every_strategy_starts_it(start, tmp_path):
    raw = {**SCENARIO, "strategies": {start: {}}, "data": {**SCENARIO["data"], "train_samples": 32, "length": 3}}
    raw |= {"stream": {"name": "static", "rounds": 2}, "training": {"until": {"epochs": 1}}}
    (cell,) = cells_of(raw)
    assert len(result(cell, tmp_path, ExecutionSettings(tmp_path))["rounds"]) == 2


def test_a_part_that_distils_sees_all_positions(tmp_path):
    parts = {"self_distillation": {}, "confidence_penalty": {"strength": 0.1}, "ema_distillation": {}}
    (cell,) = cells_of({**SCENARIO, "strategies": {"arm": {"start": "random_init", **parts}}})
    assert len(result(cell, tmp_path, ExecutionSettings(tmp_path))["rounds"]) == 2


VIT = {"name": "vit", "patch": 2, "width": 8, "heads": 2, "depth": 1}


def begin(cell, execution) -> None:
    trainer = CellTrainer(cell, execution)
    trainer.begin(trainer.rounds[0], None)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "bilstm"}, "model.name: 'bilstm' predicts no next tokens, as markov_text has; choose decoder"),
        ({"model": "mlp"}, "model.name: 'mlp' takes no texts, as markov_text has; choose decoder"),
        ({"data": "synthetic_text"}, "'decoder' predicts no class of a text, as synthetic_text has; choose bilstm"),
        ({"data": {"name": "markov_text", "label_noise": 0.2}}, "data.label_noise: markov_text has no classes"),
        (
            {"stream": {"name": "online", "order": "balanced"}},
            "stream.order: balanced deals out classes, and markov_text has next tokens; choose random or given",
        ),
        (
            {"strategies": {"fc": {"above": "layer7"}}},
            "strategy 'fc': above: unknown block 'layer7'.*embedding, layer1",
        ),
        (
            {"data": "digits", "model": VIT, "strategies": {"layerwise": {"above": ["layer1", "layer9"]}}},
            "strategy 'layerwise': above: unknown block 'layer9'.*patches, layer1",
        ),
        (
            {"strategies": {"layerwise": {"above": ["block1"]}}},
            "strategy 'layerwise': above: unknown block 'block1'.*embedding, layer1",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_before_anything_is_trained(changed, message, tmp_path):
    (cell,) = cells_of({**SCENARIO, **changed})
    with pytest.raises(WarmstartError, match=message):
        begin(cell, ExecutionSettings(tmp_path))
