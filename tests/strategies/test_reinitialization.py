"""WELSR, WELS, DSD, FC, head, rescaling and layerwise against their formulas, identities, and bad input."""

import copy
import dataclasses

import pydantic
import pytest
import torch

from tests.probes.test_probes import OPTIONS, SHAPES, context_of
from tests.strategies.test_shrink_perturb import same_bits
from warmstart_sim import models
from warmstart_sim import scenario as scenarios
from warmstart_sim.errors import WarmstartError
from warmstart_sim.experiment.cell_trainer import CellTrainer
from warmstart_sim.experiment.run_cell import run_cell
from warmstart_sim.experiment.settings import ExecutionSettings
from warmstart_sim.results.store import RunFolder
from warmstart_sim.seeding import scoped_torch_seed, torch_generator
from warmstart_sim.strategies.layerwise import Layerwise
from warmstart_sim.strategies.rescale import Rescale
from warmstart_sim.strategies.subsets import Dsd, Wels, Welsr, chosen
from warmstart_sim.strategies.upper_layers import Fc, Head
from warmstart_sim.training.loop import train
from warmstart_sim.training.starts import start_of_round
from warmstart_sim.types import Layout, RoundContext, Start


def network(seed, name="small_cnn"):
    """A model with a place for normalisations, whose parameters are all away from zero."""
    with scoped_torch_seed(seed, "test"):
        model = models.build(name, OPTIONS.get(name, {}), SHAPES[name], 10)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn(parameter.shape))
    models.insert_normalization(model)
    return model


CONTEXT = dataclasses.replace(
    context_of("small_cnn", network(1)), fresh=network(2).state_dict(), initial=network(3).state_dict
)
PREVIOUS, FRESH = CONTEXT.previous, CONTEXT.fresh
LAYOUT = CONTEXT.layout
WEIGHTS = chosen(LAYOUT, FRESH, "weights")
SUBSETS = [Welsr, Wels, Dsd, lambda *options: Dsd(*options, within="network")]


def start(strategy, round_=1, previous=PREVIOUS):
    context = dataclasses.replace(
        CONTEXT, round=round_, generator=lambda purpose, index=round_: torch_generator(0, purpose, index)
    )
    return strategy(previous, FRESH, context)


def fresh_entries(state):
    """Which weights a state has from `fresh`, as one mask."""
    return torch.cat([(state[name] == FRESH[name]).flatten() for name in WEIGHTS])


@pytest.mark.parametrize("parameters", ["weights", "all"])
@pytest.mark.parametrize("subset", SUBSETS)
def test_a_fraction_of_zero_is_warm_start_and_one_is_random_init_to_the_bit(subset, parameters):
    assert same_bits(start(subset(0, parameters)), PREVIOUS)
    everything = start(subset(1, parameters))
    assert same_bits(everything, FRESH) == (parameters == "all")  # buffers included
    assert fresh_entries(everything).all()


@pytest.mark.parametrize("subset", [Welsr, Wels, SUBSETS[3]])
def test_a_subset_is_a_fifth_of_the_weights_and_nothing_else(subset):
    state = start(subset())
    mask = fresh_entries(state)
    assert mask.sum() == round(0.2 * len(mask))
    assert all(torch.equal(state[name], PREVIOUS[name]) for name in state if name not in WEIGHTS)


def test_welsr_draws_another_subset_in_each_round_and_wels_the_same():
    assert torch.equal(fresh_entries(start(Wels(), 1)), fresh_entries(start(Wels(), 2)))
    first, second = (fresh_entries(start(Welsr(), round_)) for round_ in (1, 2))
    assert (first & second).sum() / first.sum() == pytest.approx(0.2, abs=0.03)  # independent: a fifth of a fifth


def test_dsd_takes_the_smallest_of_each_layer_or_of_the_network():
    layers, whole = start(Dsd(0.3)), start(Dsd(0.3, within="network"))
    magnitudes = torch.cat([PREVIOUS[name].abs().flatten() for name in WEIGHTS])
    taken = fresh_entries(whole)
    assert magnitudes[taken].max() <= magnitudes[~taken].min()
    for name in WEIGHTS:
        taken = layers[name] == FRESH[name]
        assert taken.sum() == round(0.3 * taken.numel())
        assert PREVIOUS[name].abs()[taken].max() <= PREVIOUS[name].abs()[~taken].min()


def test_rescaled_layers_have_the_norm_of_the_initialisation_and_the_direction_of_the_last_weights():
    state, initial = start(Rescale()), CONTEXT.initial()
    for name in WEIGHTS:
        assert state[name].norm().item() == pytest.approx(initial[name].norm().item(), rel=1e-5)
        assert torch.cosine_similarity(state[name].flatten(), PREVIOUS[name].flatten(), 0).item() > 0.99999
    assert all(torch.equal(state[name], PREVIOUS[name]) for name in state if name not in WEIGHTS)
    assert same_bits(start(Rescale("all"), previous=initial), initial)  # what has its norm already


def test_head_and_fc_draw_anew_what_lies_above():
    head, above_first = start(Head()), start(Fc(above="conv1"))
    assert same_bits(head, start(Fc()))  # conv2 is the last block, and nothing lies between it and the head
    for name in FRESH:
        assert torch.equal(head[name], (FRESH if LAYOUT.in_head(name) else PREVIOUS)[name])
        assert torch.equal(above_first[name], (PREVIOUS if name.startswith("conv1.") else FRESH)[name])


def test_layerwise_without_a_block_is_random_init_and_at_the_last_block_alone_it_is_fc():
    assert same_bits(Layerwise().start(PREVIOUS, FRESH, CONTEXT, ()), FRESH)
    assert same_bits(start(Layerwise(rescale=False, normalize=False), round_=1), start(Fc()))
    assert same_bits(start(Layerwise(rescale=False, normalize=False, reinitialize=False)), PREVIOUS)


def test_rescaling_alone_and_normalisation_alone_are_layerwise_with_its_other_steps_off():
    options = {"reinitialize": False, "normalize": False, "head_as_block": True, "repeats": 1}
    assert same_bits(start(Layerwise(**options), round_=2), start(Rescale()))  # k is the head: all layers are below
    below = start(Layerwise(**options), round_=0)
    assert same_bits(below, {**PREVIOUS, "conv1.0.weight": start(Rescale())["conv1.0.weight"]})
    normalized = start(Layerwise(reinitialize=False, rescale=False), round_=1)
    changed = [name for name in PREVIOUS if not torch.equal(normalized[name], PREVIOUS[name])]
    assert changed == [f"conv2.inserted_normalization.{name}" for name in ("mean", "deviation")]
    nothing = start(Layerwise(reinitialize=False, rescale=False, normalize=False, freeze=True))
    assert same_bits(nothing.weights, PREVIOUS)


def test_a_start_of_layerwise_is_rescaled_below_normalised_at_the_block_and_fresh_above():
    state = start(Layerwise(repeats=2))  # round 1 is the second with k = 1
    for name in FRESH:
        if not name.startswith("conv1."):
            assert torch.equal(state[name], FRESH[name]), name
    assert same_bits({"w": state["conv1.0.weight"]}, {"w": start(Rescale())["conv1.0.weight"]})
    outputs = CONTEXT.block_outputs(state, "conv1", CONTEXT.samples(CONTEXT.train)[0])
    assert outputs.mean().item() == pytest.approx(0, abs=1e-5)
    assert outputs.std().item() == pytest.approx(1, abs=1e-3)
    again = start(Layerwise(repeats=2), previous={**PREVIOUS, **state})  # it replaces the last normalisation
    assert torch.allclose(again["conv1.inserted_normalization.mean"], state["conv1.inserted_normalization.mean"])


def test_the_first_start_and_a_frozen_one():
    first = dataclasses.replace(CONTEXT, round=0, previous=None, initial=lambda: FRESH)
    prepared = Layerwise(freeze=True).prepare_first_round(FRESH, first)
    changed = [name for name in FRESH if not torch.equal(prepared[name], FRESH[name])]
    assert changed == [f"conv1.inserted_normalization.{name}" for name in ("mean", "deviation")]
    frozen = start(Layerwise(freeze=True, repeats=3))
    assert isinstance(frozen, Start)
    assert frozen.trainable == {name for name in LAYOUT.parameters if not name.startswith("conv1.")}
    assert same_bits(frozen.weights, start(Layerwise(repeats=3)))


def test_the_block_of_each_round():
    blocks = ["a", "b", "c"]
    assert [Layerwise(repeats=2).block_of(t, blocks) for t in range(8)] == [1, 1, 2, 2, 3, 3, 3, 3]
    assert [Layerwise(repeats=(2, 3)).block_of(t, blocks) for t in range(6)] == [1, 1, 2, 2, 2, 2]


RESNET = ("stem", "layer1", "layer2", "layer3", "layer4", "head")


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize(
    ("above", "repeats"),
    [(RESNET[1:5], 1), (RESNET[1:5], 2), (RESNET[1:5], 4), (("layer2",), 1)],  # T = 5, 10, 20 and 2
)
def test_in_zaidis_form_all_after_block_k_is_initialised_at_the_end_of_each_of_its_stages(above, repeats, rescale):
    """Their equation, theta m + theta_init (1 - m), with T = K M stages, the head in block K."""
    generator = torch.Generator().manual_seed(0)
    first, previous, fresh = ({f"{n}.w": torch.randn(2, 3, generator=generator) for n in RESNET} for _ in range(3))
    layout = Layout(frozenset(fresh), frozenset(), RESNET[:-1], "head")
    context = RoundContext(0, layout, lambda purpose: generator, None, fresh, lambda: first)
    strategy = Layerwise(above=above, repeats=repeats, head_as_block=True, rescale=rescale, normalize=False)
    assert same_bits(strategy.prepare_first_round(fresh, context), fresh)
    for t in range(1, (len(above) + 1) * repeats):
        block = -(-t // repeats)  # of the first M stages it is the first
        kept = RESNET[: RESNET.index((*above, "head")[block - 1]) + 1]
        started = strategy(previous, fresh, dataclasses.replace(context, round=t, previous=previous))
        for name in RESNET:
            entry = f"{name}.w"
            expected = previous[entry] if name in kept else fresh[entry]
            if rescale and name in kept:
                expected = expected / expected.norm() * first[entry].norm()
            torch.testing.assert_close(started[entry], expected)


@pytest.mark.parametrize(
    ("above", "line"),
    [
        (("layer5",), "above: unknown block 'layer5'; did you mean 'layer"),
        (("layer3", "layer1"), "above: found layer3, layer1; from input to output, each once, they are layer1, layer3"),
        (("layer1", "layer1"), "above: found layer1, layer1; from input to output, each once, they are layer1"),
        (("head",), "above: unknown block 'head'"),
    ],
)
def test_blocks_that_the_model_lacks_or_in_another_order_are_one_line(above, line):
    with pytest.raises(WarmstartError, match=f"^strategy 'layerwise': {line}"):
        Layerwise(above=above, head_as_block=True).tops(RESNET)


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        (Welsr, {"fraction": 1.1}), (Wels, {"fraction": -0.1}), (Dsd, {"within": "block"}), (Layerwise, {"repeats": 0}),
        (Layerwise, {"repeats": ()}), (Layerwise, {"repeats": (2, 0)}), (Layerwise, {"samples": 0}),
        (Layerwise, {"freeze": True, "head_as_block": True}),
    ],
)  # fmt: skip
def test_values_outside_their_range_are_refused(strategy, options):
    with pytest.raises(pydantic.ValidationError):
        strategy(**options)


def test_what_does_not_fit_the_model_is_said():
    with pytest.raises(WarmstartError, match=r"repeats has 3 numbers, but the model has 2 blocks \(conv1, conv2\)"):
        start(Layerwise(repeats=(1, 1, 1)))
    with pytest.raises(WarmstartError, match=r"above: unknown block 'conv3'; did you mean 'conv2'"):
        start(Fc(above="conv3"))
    first = dataclasses.replace(CONTEXT, previous=None)  # before anything is trained
    with pytest.raises(WarmstartError, match=r"above: unknown block 'conv3'"):
        start_of_round(Fc(above="conv3"), "fc", first, ())
    bare = dataclasses.replace(CONTEXT, layout=dataclasses.replace(LAYOUT, blocks=()))
    for strategy in (Fc(), Layerwise()):
        with pytest.raises(WarmstartError, match=r"needs a model with blocks.*self.block_names = \("):
            strategy(PREVIOUS, FRESH, bare)
    without = {name: each for name, each in FRESH.items() if "inserted" not in name}
    with pytest.raises(WarmstartError, match=r"models\.insert_normalization"):
        Layerwise()(without, without, CONTEXT)


@pytest.mark.parametrize("name", ["mlp", "small_cnn", "bilstm"])
def test_an_inserted_normalisation_is_the_identity_until_it_is_set(name):
    model = network(1, name).eval()
    plain = models.build(name, OPTIONS.get(name, {}), SHAPES[name], 10).eval()
    plain.load_state_dict({key: each for key, each in model.state_dict().items() if "inserted" not in key})
    inputs = context_of(name).samples(torch.arange(6).numpy())[0]
    assert torch.equal(model(inputs), plain(inputs))
    model.get_submodule(f"{model.head_name}.inserted_normalization").deviation.fill_(2.0)
    assert torch.equal(2 * model(inputs), plain(inputs))
    models.insert_normalization(model)  # again changes nothing
    assert torch.equal(2 * model(inputs), plain(inputs))
    copied = copy.deepcopy(model)
    copied.get_submodule(f"{model.head_name}.inserted_normalization").reset_parameters()
    assert torch.equal(2 * model(inputs), copied(inputs))


def test_stored_weights_load_into_a_model_that_a_user_builds_and_give_the_recorded_accuracy(tiny_scenario, tmp_path):
    raw = {**tiny_scenario, "strategies": {"layerwise": {}}, "seeds": [0]}
    raw["training"] = {"until": {"epochs": 3}}
    cell = scenarios.plan(raw, "file")[1][0]
    run = RunFolder(tmp_path / "run")
    run_cell(cell, run, ExecutionSettings(tmp_path))
    weights = torch.load(run.path / "cells" / cell.id / "weights.pt", weights_only=True)
    model = models.build("small_cnn", {"channels": [4, 8]}, (1, 8, 8), 10)
    with pytest.raises(RuntimeError, match=r"Unexpected.*conv1\.inserted_normalization\.mean"):
        model.load_state_dict(weights)
    models.insert_normalization(model)
    model.load_state_dict(weights)
    trainer = CellTrainer(cell, ExecutionSettings(tmp_path))
    samples, indices = trainer.samples_of("test", trainer.rounds[0])
    inputs, labels = samples.batch(indices)
    accuracy = (model.eval()(inputs).argmax(1) == labels).float().mean().item()
    assert accuracy == pytest.approx(run.cell(cell.id).result()["rounds"][-1]["test_accuracy"])
    torch.save(model, tmp_path / "model.pt")
    assert torch.equal(torch.load(tmp_path / "model.pt", weights_only=False)(inputs), model(inputs))


def test_warm_start_in_stages_is_one_training_and_as_many_steps_of_full_batch_descent(tmp_path):
    raw = {"name": "baseline", "data": {"name": "signal_in_noise", "normalize": "none", "test_samples": 8}}
    raw |= {"model": {"name": "mlp", "widths": [8], "init": "xavier"}, "strategies": {"warm_start": {}}}
    raw["training"] = {"optimizer": {"name": "sgd", "lr": 0.05}, "batch_size": 256}
    ends = []
    for stages in (1, 4):
        raw["stream"] = {"name": "stages", "stages": stages, "steps": 20}
        trainer, last, steps = CellTrainer(scenarios.plan(raw, "file")[1][0], ExecutionSettings(tmp_path)), None, 0
        for round_ in trainer.rounds:
            _, training = trainer.begin(round_, last)
            train(training)
            last, steps = trainer.weights(), steps + training.outcome.steps
        assert (steps, training.outcome.status) == (20, "finished")
        ends.append(last)
    for name in ends[0]:  # only the order of the samples in each sum differs
        assert torch.allclose(ends[0][name], ends[1][name], rtol=1e-4, atol=1e-6), name


def test_frozen_blocks_do_not_train_and_what_lies_above_does(tiny_scenario, tmp_path):
    raw = {**tiny_scenario, "strategies": {"layerwise": {"freeze": True}}, "seeds": [0]}
    raw["stream"] = {"name": "stages", "stages": 2, "epochs": 2}
    del raw["training"]["until"]
    trainer = CellTrainer(scenarios.plan(raw, "file")[1][0], ExecutionSettings(tmp_path))
    last = None
    for round_, frozen in zip(trainer.rounds, ((), ("conv1.", "conv2.")), strict=True):
        context, training = trainer.begin(round_, last)
        train(training)
        last = trainer.weights()
        same = {name for name in trainer.layout.parameters if torch.equal(last[name], context.start[name])}
        assert same == {name for name in trainer.layout.parameters if name.startswith(frozen)}


def test_only_models_of_layerwise_have_a_normalisation_and_it_acts_before_the_first_training(tiny_scenario, tmp_path):
    raw = {**tiny_scenario, "strategies": {"warm_start": {}, "layerwise": {}}, "seeds": [0]}
    raw["stream"] = {"name": "stages", "stages": 2, "epochs": 2}
    del raw["training"]["until"]
    plain, layerwise = (CellTrainer(cell, ExecutionSettings(tmp_path)) for cell in scenarios.plan(raw, "file")[1])
    assert {name for name in layerwise.weights() if name not in plain.weights()} == {
        f"{block}.inserted_normalization.{name}"
        for block in ("conv1", "conv2", "head")
        for name in ("mean", "deviation")
    }
    context, training = layerwise.begin(layerwise.rounds[0], None)
    assert context.start["conv1.inserted_normalization.deviation"] != 1
    assert len(train(training)) == 1
    context, _ = layerwise.begin(layerwise.rounds[1], layerwise.weights())
    weights = layerwise.weights()
    assert weights["conv1.inserted_normalization.mean"] != 0
    assert weights["conv2.inserted_normalization.deviation"] != 1
