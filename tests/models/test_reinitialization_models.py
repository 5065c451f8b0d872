"""The four CNNs of Alabdulmohsin et al. 2021 against torchvision's networks, closed forms and formulas."""

import math

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from warmstart_sim.acceleration.stacked_layers import SampleMask, Unstackable, stacked_network
from warmstart_sim.models import build, layout, takes_channels_last
from warmstart_sim.seeding import scoped_torch_seed

BLOCKS = {"simple_cnn": 4, "vgg16": 13, "mobilenet": 7, "resnet50": 16}
FULL = (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)
SMALL = {"simple_cnn": {"width": 4}, "vgg16": {"width": 2}, "mobilenet": {"widths": (4, 8, 8, 16, 16, 16, 32)},
         "resnet50": {"width": 2}}  # fmt: skip
every_model = pytest.mark.parametrize("name", BLOCKS)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def meta(name, shape, classes=10, **options):
    """The model at its full size, without memory for its weights."""
    with torch.device("meta"):
        return build(name, options, shape, classes)


def images(side, n=2):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


@every_model
def test_blocks_are_as_many_as_the_paper_counts_and_dense_layers_are_above_them(name):
    found = layout(meta(name, (3, 32, 32)))
    assert found.blocks == tuple(f"block{k + 1}" for k in range(BLOCKS[name]))
    assert found.head == "head"
    above = {entry.split(".")[0] for entry in found.parameters} - {*found.blocks, "head"}
    assert above == {"simple_cnn": {"dense"}, "vgg16": {"dense1", "dense2"}}.get(name, set())


@pytest.mark.parametrize("side", [32, 64, 224])
def test_number_of_parameters_of_the_simple_cnn(side):
    """Weights and biases of the convolutions, a scale and a shift for each channel, the dense layer, and the head."""
    convolutions = sum(9 * a * b + b + 2 * b for a, b in ((3, 32), (32, 32), (32, 64), (64, 64)))
    dense = 64 * (side // 4) ** 2 * 512 + 512 + 2 * 512
    assert count(meta("simple_cnn", (3, side, side))) == convolutions + dense + 512 * 10 + 10


@pytest.mark.parametrize(("norm", "theirs"), [("none", "vgg16"), ("batch", "vgg16_bn"), ("layer", "vgg16_bn")])
def test_vgg16_has_torchvisions_number_of_parameters(norm, theirs):
    with torch.device("meta"):
        expected = count(torchvision.models.get_model(theirs, weights=None))
    assert count(meta("vgg16", (3, 224, 224), 1000, norm=norm)) == expected


@pytest.mark.parametrize(("norm", "width"), [("batch", 64), ("layer", 64), ("batch", 128)])
def test_resnet50_has_torchvisions_number_of_parameters(norm, width):
    name = {64: "resnet50", 128: "wide_resnet50_2"}[width]
    with torch.device("meta"):
        expected = count(torchvision.models.get_model(name, weights=None))
    assert count(meta("resnet50", (3, 224, 224), 1000, norm=norm, width=width)) == expected


def test_the_full_mobilenet_has_the_published_number_of_parameters():
    """4,231,976 trainable ones, as in Keras's MobileNet for ImageNet."""
    model = meta("mobilenet", (3, 224, 224), 1000, widths=FULL, norm="batch")
    assert count(model) == 4_231_976
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 224, 224))
    assert counter.get_total_flops() / 2 == pytest.approx(569e6, rel=0.01)  # Howard et al. 2017, table 4


def test_resnet50_equals_torchvisions():
    generator = torch.Generator().manual_seed(0)
    with scoped_torch_seed(0, "init"):
        theirs = torchvision.models.resnet50(weights=None, num_classes=5).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    ours = build("resnet50", {"norm": "batch", "stem": "imagenet"}, (3, 64, 64), 5).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    with torch.no_grad():
        assert torch.equal(ours(images(64)), theirs(images(64)))


def test_vgg16_equals_torchvisions_features_and_dense_layers():
    ours = build("vgg16", {"norm": "batch", "width": 4}, (3, 32, 32), 5).eval()
    narrow = [each if each == "M" else each // 16 for each in torchvision.models.vgg.cfgs["D"]]
    features = torchvision.models.vgg.make_layers(narrow, batch_norm=True)
    dense = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 5))
    theirs = nn.Sequential(features, nn.Flatten(), dense).eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    with torch.no_grad():
        assert torch.equal(ours(images(32)), theirs(images(32)))


@every_model
@pytest.mark.parametrize("side", [32, 64, 224])
def test_logits_at_each_image_size(name, side):
    assert build(name, SMALL[name], (3, side, side), 6).eval()(images(side, 1)).shape == (1, 6)


@pytest.mark.parametrize(("name", "sides"), [("mobilenet", (4, 8, 14)), ("resnet50", (4, 8, 7))])
def test_stems_leave_small_images_their_size_and_shrink_large_ones(name, sides):
    for side, expected in zip((32, 64, 224), sides, strict=True):
        model, seen = meta(name, (3, side, side)), []
        model.pool.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(inputs[0].shape[-1]))
        model(torch.zeros(1, 3, side, side, device="meta"))
        assert seen == [expected]


def test_layer_norm_is_over_channels_and_pixels():
    """One-group GroupNorm equals `F.layer_norm` over (C, H, W), times a scale and plus a shift for each channel."""
    block = build("simple_cnn", {"width": 4}, (3, 8, 8), 3).block1
    with torch.no_grad():
        block[1].weight.uniform_(0.5, 2, generator=torch.Generator().manual_seed(1))
        block[1].bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(2))
        hidden = block[0](images(8))
        expected = (
            F.layer_norm(hidden, hidden.shape[1:]) * block[1].weight[:, None, None] + block[1].bias[:, None, None]
        )
        torch.testing.assert_close(block(images(8)), expected.relu())


@every_model
def test_norms_are_of_one_kind(name):
    kinds = {"layer": {nn.GroupNorm}, "batch": {nn.BatchNorm1d, nn.BatchNorm2d}, "none": set()}
    norms = set.union(*kinds.values())
    for norm, kind in kinds.items():
        model = build(name, {**SMALL[name], "norm": norm}, (3, 32, 32), 3)
        found = {type(module) for module in model.modules()} & norms
        assert found <= kind
        assert bool(found) == bool(kind) == bool(layout(model).norm_affine)


@pytest.mark.parametrize(("name", "width"), [("simple_cnn", 32), ("vgg16", 16), ("resnet50", 16)])
def test_initial_weights_follow_the_named_rule(name, width):
    def weight(init):
        model = build(name, {"init": init, "width": width}, (3, 8, 8), 10)
        layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
        assert init == "default" or not any(each.bias.any() for each in layers if each.bias is not None)
        inner = [each for each in model.block4.modules() if isinstance(each, nn.Conv2d)]
        return next(each.weight for each in inner if each.kernel_size == (3, 3))

    filters, channels, *_ = weight("he").shape
    fan_in, fan_out = 9 * channels, 9 * filters
    assert weight("he").std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)
    assert weight("xavier").abs().max().item() == pytest.approx(math.sqrt(6 / (fan_in + fan_out)), rel=0.01)
    default = math.sqrt(2 / fan_out) if name == "resnet50" else math.sqrt(1 / (3 * fan_in))
    assert weight("default").std().item() == pytest.approx(default, rel=0.05)


@every_model
def test_dropout_acts_in_training_mode_only(name):
    model = build(name, {**SMALL[name], "dropout": 0.5}, (3, 32, 32), 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(model.train()(images(32)), model(images(32)))
    assert torch.equal(model.eval()(images(32)), model(images(32)))
    with pytest.raises(Unstackable):
        stacked_network(model, 2, SampleMask())


@every_model
def test_stacks_compute_what_single_models_do(name):
    models = []
    for seed in (0, 1):
        with scoped_torch_seed(seed, "init"):
            models.append(build(name, SMALL[name], (3, 16, 16), 3).double().train())
    stacked, spatial = stacked_network(models[0], 2, SampleMask())
    assert spatial
    for entry, tensor in stacked.named_parameters():
        tensor.data.copy_(torch.stack([model.get_parameter(entry) for model in models]))
    inputs = images(16, 4).double()
    together = stacked(torch.cat([inputs, inputs.flip(0)], dim=1))
    for r, own in enumerate((inputs, inputs.flip(0))):
        torch.testing.assert_close(together[r], models[r](own), rtol=1e-6, atol=1e-8)


@every_model
def test_images_are_laid_out_channels_last(name):
    assert takes_channels_last(meta(name, (3, 32, 32)))
