"""PreAct-ResNet-18 and MobileNetV2 against torchvision's networks, published numbers and formulas."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from warmstart_sim.acceleration.stacked_layers import SampleMask, stacked_network
from warmstart_sim.models import build, layout
from warmstart_sim.seeding import scoped_torch_seed

every_model = pytest.mark.parametrize("name", ["preact_resnet18", "mobilenet_v2"])


def meta(name, side, classes=10, **options):
    """The model without memory for its weights."""
    with torch.device("meta"):
        return build(name, options, (3, side, side), classes)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def images(side, n=2):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def shaken(model):
    """Statistics of BatchNorm that are not zeros and ones."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "side", "classes", "published"),
    [
        ("mobilenet_v2", 224, 1000, 3_504_872),  # torchvision's
        # kuangliu/pytorch-cifar's has 11,171,146 without a last norm, whose scale and shift are 2 x 512 more.
        ("preact_resnet18", 32, 10, 11_171_146 + 1_024),
        # torchvision's ResNet-18 has 11,689,512. Three shortcuts lose norms of 128, 256 and 512 channels, the first
        # block one of 64, three norms shrink by 64, 128 and 256 channels, and there is the last norm of 512.
        ("preact_resnet18", 224, 1000, 11_689_512 - 2 * (128 + 256 + 512 + 64 + 64 + 128 + 256 - 512)),
    ],
)
def test_number_of_parameters_is_the_published_one(name, side, classes, published):
    assert count(meta(name, side, classes)) == published


@pytest.mark.parametrize(("width", "side"), [(32, 224), (16, 64), (48, 64)])
def test_mobilenet_v2_equals_torchvisions(width, side):
    with scoped_torch_seed(0, "init"):
        theirs = shaken(torchvision.models.mobilenet_v2(weights=None, num_classes=5, width_mult=width / 32))
    ours = build("mobilenet_v2", {"stem": "imagenet", "width": width}, (3, side, side), 5).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    with torch.no_grad():
        assert torch.equal(ours(images(side)), theirs(images(side)))


def test_mobilenet_v2_makes_the_published_number_of_operations():
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        meta("mobilenet_v2", 224, 1000)(torch.zeros(1, 3, 224, 224))
    assert counter.get_total_flops() / 2 == pytest.approx(300e6, rel=0.01)  # Sandler et al. 2018, table 4


def test_preact_resnet18_is_the_formula_of_its_paper():
    """Written with functions alone: each block adds to an unchanged sum, and the last sum is normalised."""
    model = shaken(build("preact_resnet18", {"width": 4}, (3, 16, 16), 5))
    entries = model.state_dict()

    def conv(x, name, stride=1):
        return F.conv2d(x, entries[f"{name}.weight"], stride=stride, padding=entries[f"{name}.weight"].shape[-1] // 2)

    def active(x, name):
        mean, var, scale, shift = (entries[f"{name}.{e}"] for e in ("running_mean", "running_var", "weight", "bias"))
        return F.relu(F.batch_norm(x, mean, var, scale, shift))

    x = active(conv(images(16), "stem.0"), "stem.1")
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            before = x if (layer, block) == (1, 0) else active(x, f"{name}.norm1")
            hidden = conv(active(conv(before, f"{name}.conv1", stride), f"{name}.norm2"), f"{name}.conv2")
            x = hidden + (conv(before, f"{name}.shortcut", 2) if stride == 2 else x)
    expected = active(x, "layer4.2").mean((2, 3)) @ entries["head.weight"].T + entries["head.bias"]
    with torch.no_grad():
        torch.testing.assert_close(model(images(16)), expected)


@pytest.mark.parametrize(("name", "sides"), [("preact_resnet18", (4, 8, 7)), ("mobilenet_v2", (4, 8, 7))])
def test_stems_leave_small_images_their_size_and_shrink_large_ones(name, sides):
    for side, expected in zip((32, 64, 224), sides, strict=True):
        model, seen = meta(name, side), []
        model.pool.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(inputs[0].shape[-1]))
        model(torch.zeros(1, 3, side, side, device="meta"))
        assert seen == [expected]


def test_blocks_are_those_that_layerwise_counts():
    stages = ("stem", "layer1", "layer2", "layer3", "layer4")
    assert layout(meta("preact_resnet18", 32)).blocks == layout(meta("resnet18", 32)).blocks == stages
    assert layout(meta("mobilenet_v2", 32)).blocks == ("stem", *(f"block{k}" for k in range(1, 18)), "conv")


@every_model
def test_stacks_compute_what_single_models_do(name):
    models = []
    for seed in (0, 1):
        with scoped_torch_seed(seed, "init"):
            models.append(build(name, {"width": 4}, (3, 16, 16), 3).double().train())
    stacked, spatial = stacked_network(models[0], 2, SampleMask())
    assert spatial
    for entry, tensor in [*stacked.named_parameters(), *stacked.named_buffers()]:
        tensor.data.copy_(torch.stack([model.state_dict()[entry] for model in models]))
    inputs = images(16, 4).double()
    together = stacked(torch.cat([inputs, inputs.flip(0)], dim=1))
    for r, own in enumerate((inputs, inputs.flip(0))):
        torch.testing.assert_close(together[r], models[r](own), rtol=1e-6, atol=1e-8)
