"""`warmstart_sim.start` against its formula, on wrapped checkpoints and on models with all that a model may have."""

import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import warmstart_sim
from warmstart_sim import start
from warmstart_sim.errors import DataError, WarmstartError
from warmstart_sim.seeding import scoped_torch_seed
from warmstart_sim.strategies.shrink_perturb import ShrinkPerturb


def network(seed: int, classes: int = 3) -> nn.Sequential:
    """A small network with BatchNorm, whose statistics are not those of a fresh one."""
    with scoped_torch_seed(seed, "test"):
        model = nn.Sequential()
        model.body = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU())
        model.head = nn.Linear(5, classes)
        model.train()(torch.randn(16, 4))
        for parameter in model.parameters():
            parameter.data.add_(torch.randn(parameter.shape))
    return model


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


LAST = network(1)
PARAMETERS = [name for name, _ in LAST.named_parameters()]
BUFFERS = [name for name, _ in LAST.named_buffers()]


@given(lam=st.floats(0.01, 1), sigma=st.floats(0, 10))
def test_parameters_follow_the_formula_and_buffers_are_the_checkpoints(lam, sigma):
    model = network(2)
    fresh, last = state(model), state(LAST)
    objects = [id(parameter) for parameter in model.parameters()]
    done = start(model, LAST, lam, sigma)
    for name in PARAMETERS:
        expected = lam * last[name].double() + sigma * fresh[name].double()
        assert torch.allclose(model.get_parameter(name).double(), expected, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(model.state_dict()[name], last[name]) for name in BUFFERS)
    assert sorted(done.perturbed) == sorted(PARAMETERS)
    assert sorted(done.kept) == sorted(BUFFERS)
    assert objects == [id(parameter) for parameter in model.parameters()]  # an optimiser still holds them


def test_it_is_the_strategys_start_to_the_bit():
    from warmstart_sim import models
    from warmstart_sim.types import RoundContext

    for options in ({}, {"noise": "scaled"}, {"noise": "gaussian", "affine": "keep"}, {"parameters": "head"}):
        model, generator = network(2), torch.Generator().manual_seed(3)
        context = RoundContext(1, models.layout(model), lambda purpose: torch.Generator().manual_seed(3))
        expected = ShrinkPerturb(0.3, 0.2, **options)(state(LAST), state(model), context)
        start(model, LAST, 0.3, 0.2, **options, generator=generator)
        assert same(state(model), expected)


def test_the_identities_with_warm_start_and_random_init():
    warm, cold = network(2), network(2)
    fresh = state(cold)
    start(warm, LAST, 1, 0)
    start(cold, LAST, 0, 1)
    assert same(state(warm), state(LAST))
    assert same(state(cold), fresh)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: {f"module.{name}": each for name, each in state(model).items()},
        lambda model: {f"_orig_mod.{name}": each for name, each in state(model).items()},
        lambda model: {"epoch": 3, "model": state(model), "optimizer": {"state": {}, "lr": 0.1}},
        lambda model: {"state_dict": {f"net.{name}": each for name, each in state(model).items()}, "loops": {}},
        lambda model: {"state_dict": state(model), "state_dict_ema": state(network(7))},
    ],
    ids=["DataParallel", "compiled", "training script", "Lightning", "beside a running mean"],
)
@pytest.mark.parametrize("suffix", [".pt", ""])
def test_wrapped_checkpoints_are_read_from_a_file_and_as_they_are(wrap, suffix, tmp_path):
    content = checkpoint = wrap(LAST)
    if suffix:
        checkpoint = tmp_path / f"last{suffix}"
        torch.save(content, checkpoint)
    model = network(2)
    done = start(model, checkpoint, 1, 0)
    assert same(state(model), state(LAST))
    assert bool(done.notes) == ("state_dict_ema" in content)


def test_weights_names_the_running_mean():
    model, mean = network(2), network(7)
    start(model, {"model": state(LAST), "ema": state(mean)}, 1, 0, weights="ema")
    assert same(state(model), state(mean))
    with pytest.raises(DataError, match="weights: the checkpoint: unknown set of weights 'emma'; did you mean 'ema'"):
        start(model, {"model": state(LAST), "ema": state(mean)}, 1, 0, weights="emma")


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_a_wrapped_model_starts_too(wrap):
    inner, plain = network(2), network(2)
    start(wrap(inner), LAST, 0.5, 0.1)
    start(plain, LAST, 0.5, 0.1)
    assert same(state(inner), state(plain))


@pytest.mark.parametrize("name", ["last.safetensors", "last.pt"])
def test_saved_weights_are_read_again(name, tmp_path):
    tied = Tied(1)
    warmstart_sim.save_weights(nn.DataParallel(tied), tmp_path / name)
    model = Tied(2)
    start(model, str(tmp_path / name), 1, 0)
    assert same(state(model), state(tied))
    assert [file.name for file in tmp_path.iterdir()] == [name]


class Tied(nn.Module):
    """An encoder and a decoder that share a matrix, through one object or through memory alone."""

    def __init__(self, seed: int, shared_memory: bool = False) -> None:
        super().__init__()
        with scoped_torch_seed(seed, "tied"):
            self.encoder, self.decoder = nn.Linear(3, 3), nn.Linear(3, 3)
            if shared_memory:
                self.decoder.weight.data = self.encoder.weight.data
            else:
                self.decoder.weight = self.encoder.weight


@pytest.mark.parametrize("shared_memory", [False, True])
@pytest.mark.parametrize("noise", ["fresh", "gaussian", "scaled"])
def test_tied_weights_are_shrunk_once(shared_memory, noise):
    model, last = Tied(2, shared_memory), Tied(1)
    start(model, last, 0.5, 0)
    assert torch.equal(model.encoder.weight, 0.5 * last.encoder.weight)
    assert model.encoder.weight.data_ptr() == model.decoder.weight.data_ptr()
    model, fresh = Tied(2, shared_memory), Tied(2)
    start(model, last, 0.5, 0.1, noise=noise, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.encoder.weight, model.decoder.weight)
    if noise == "fresh":
        assert torch.equal(model.decoder.weight, 0.5 * last.encoder.weight + 0.1 * fresh.encoder.weight)


def test_a_checkpoint_whose_tied_weights_differ_is_refused():
    content = state(Tied(1)) | {"decoder.weight": torch.zeros(3, 3)}
    with pytest.raises(WarmstartError, match=r"'encoder.weight' and 'decoder.weight' are one tensor in the model"):
        start(Tied(2), content)


def test_a_grown_heads_old_rows_are_shrunk_and_new_ones_stay_fresh():
    model = network(2, classes=5)
    fresh, last = state(model), state(LAST)
    done = start(model, LAST, 0.5, 0.1)
    for name in ("head.weight", "head.bias"):
        found = model.get_parameter(name)
        assert torch.equal(found[:3], 0.5 * last[name] + 0.1 * fresh[name][:3])
        assert torch.equal(found[3:], fresh[name][3:])
    assert done.new_rows == {"head.weight": 2, "head.bias": 2}
    model = network(2, classes=5)
    assert set(start(model, LAST, 0.5, 0.1, head="fresh").fresh) == {"head.weight", "head.bias"}
    assert torch.equal(model.head.weight, fresh["head.weight"])


def test_frozen_layers_keep_the_checkpoints_values_statistics_included():
    model = network(2)
    model.body.requires_grad_(False)
    done = start(model, LAST, 0.5, 0.1, buffers="fresh")
    assert all(torch.equal(model.state_dict()[name], each) for name, each in state(LAST).items() if "body" in name)
    assert set(done.perturbed) == {"head.weight", "head.bias"}


class Odd(nn.Module):
    """A scalar, an integer, a complex and an empty parameter beside a layer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with scoped_torch_seed(seed, "odd"):
            self.layer = nn.Linear(2, 2)
            self.temperature = nn.Parameter(torch.randn(()))
            self.table = nn.Parameter(torch.randint(9, (3,)), requires_grad=False)
            self.phase = nn.Parameter(torch.randn(2, dtype=torch.complex64))
            self.nothing = nn.Parameter(torch.zeros(0))


@pytest.mark.parametrize("noise", ["fresh", "gaussian", "scaled"])
def test_scalars_do_not_become_nan_and_integers_and_complex_numbers_are_left_alone(noise):
    model, last = Odd(2), Odd(1)
    done = start(model, last, 0.5, 0.1, noise=noise)
    assert all(torch.isfinite(each).all() for each in model.parameters() if each.is_floating_point())
    assert {"table", "phase"} <= set(done.kept)
    assert torch.equal(model.table, last.table)
    assert torch.equal(model.phase, last.phase)
    if noise == "scaled":  # a scalar has no deviation
        assert torch.equal(model.temperature, 0.5 * last.temperature)


@given(lam=st.floats(0.01, 1), sigma=st.floats(0.001, 2), scale=st.floats(0.01, 100))
def test_scaled_noise_follows_each_tensors_own_deviation(lam, sigma, scale):
    last, model = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)
    last.weight.data.mul_(scale)
    start(model, last, lam, sigma, noise="scaled", generator=torch.Generator().manual_seed(0))
    drawn = (model.weight - lam * last.weight).std().item()
    expected = sigma * last.weight.std().item()
    assert drawn == pytest.approx(expected, rel=0.05)  # 4,096 draws: the deviation's own error is 1.1 %


@pytest.mark.parametrize(("affine", "names"), [("keep", "kept"), ("fresh", "fresh"), ("shrink", "perturbed")])
def test_normalisation_scales_are_an_explicit_choice(affine, names):
    done = start(network(2), LAST, 0.5, 0.1, affine=affine)
    assert {"body.1.weight", "body.1.bias"} <= set(getattr(done, names))


def test_nothing_is_drawn_where_sigma_is_zero():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    start(network(2), LAST, 0.5, 0, noise="gaussian", generator=generator)
    assert torch.equal(generator.get_state(), before)
    start(network(2), LAST, 0.5, 0.1, noise="gaussian", generator=generator)
    assert not torch.equal(generator.get_state(), before)


def test_only_what_include_takes_is_changed_and_a_predicate_that_takes_nothing_is_told():
    model = network(2)
    done = start(model, LAST, 0.5, 0.1, include=lambda name, parameter: parameter.ndim > 1)
    assert set(done.perturbed) == {"body.0.weight", "head.weight"}
    with pytest.warns(UserWarning, match=r"include takes none of the 6 parameters \(such as 'body.0.weight'\)"):
        start(model, LAST, 0.5, 0.1, include=lambda name, parameter: "lora" in name)
    assert same(state(model), state(LAST))


def noise_like(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: torch.ones_like(each) for name, each in model.named_parameters()}


def test_own_noise_takes_the_place_of_the_fresh_weights():
    model = network(2)
    start(model, LAST, 0.5, 0.25, noise=noise_like(model))
    assert torch.allclose(model.head.weight, 0.5 * LAST.head.weight + 0.25)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lam": math.nan}, "lam: found nan"),
        ({"lam": math.inf}, "lam: found inf"),
        ({"lam": 1.5}, "lam: found 1.5"),
        ({"sigma": -1}, "sigma: found -1"),
        ({"sigma": math.nan}, "sigma: found nan"),
        ({"noise": "uniform"}, "noise: found 'uniform'"),
        ({"noise": "initial"}, r"noise: found 'initial' \(allowed: fresh, gaussian, scaled, or tensors of your own"),
        ({"affine": "half"}, "affine: found 'half'"),
        ({"head": "keep"}, r"head: found 'keep' \(allowed: grow, fresh\)"),
        ({"noise": {}}, "noise: there is none for 6 of the parameters, such as 'body.0.bias'"),
        ({"noise": noise_like(LAST) | {"hed.bias": torch.ones(3)}}, "unknown parameter 'hed.bias'; did you mean 'head"),
        (
            {"noise": noise_like(LAST) | {"head.bias": torch.ones(1)}},
            r"'head.bias' has shape \(1,\), and the .* \(3,\)",
        ),
        ({"noise": noise_like(LAST) | {"head.bias": torch.ones(3, device="meta")}}, "'head.bias' is on meta, and the "),
        ({"noise": noise_like(LAST) | {"head.bias": torch.ones(3).int()}}, "'head.bias' is torch.int32"),
        ({"checkpoint": "nowhere.pt"}, "checkpoint: there is no file nowhere.pt"),
        ({"checkpoint": {"epoch": 3}}, "checkpoint: the dict holds no state dict"),
        (
            {"checkpoint": network(1, classes=7)},
            r"the checkpoint's weights have another architecture: 6 of the 8 entries of the model fit\n"
            r"  'head.weight' is \(7, 5\) there and \(3, 5\) in the model",
        ),
        (
            {"checkpoint": state(LAST) | {"body.0.bias": torch.ones(9)}},
            r"'body.0.bias' is \(9,\) there and \(5,\)",
        ),
        (
            {"checkpoint": {name: each for name, each in state(LAST).items() if name != "body.0.bias"}},
            r"they lack 'body.0.bias' \(5,\)",
        ),
        ({"checkpoint": state(LAST) | {"extra.w": torch.ones(2)}}, r"they have 'extra.w' \(2,\), which the model does"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_before_anything_is_changed(options, message):
    model = network(2)
    before = state(model)
    with pytest.raises(WarmstartError, match=message):
        start(model, **{"checkpoint": LAST, "noise": "fresh", **options})
    assert same(state(model), before)


def test_a_model_without_weights_yet_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lazy = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))
    with pytest.raises(WarmstartError, match=r"parameter '0.weight' has no shape yet; pass a batch"):
        start(lazy, LAST)
