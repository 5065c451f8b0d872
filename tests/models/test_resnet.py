"""ResNet-18 compared with torchvision's, and with numbers from the papers' code."""

import math

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from warmstart_sim.models import build
from warmstart_sim.seeding import scoped_torch_seed


def resnet18(shape=(3, 32, 32), classes=10, **options):
    return build("resnet18", options, shape, classes)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({"width": 16, "stem": "cifar"}, 701_466),
        ({"width": 64, "stem": "cifar"}, 11_173_962),
        ({"width": 64, "stem": "cifar_maxpool"}, 11_173_962),
    ],
)
def test_number_of_parameters_equals_the_papers_code(options, parameters):
    with torch.device("meta"):
        assert count(resnet18(**options)) == parameters


def test_equals_torchvision_with_the_imagenet_stem():
    generator = torch.Generator().manual_seed(0)
    with scoped_torch_seed(0, "init"):
        theirs = torchvision.models.resnet18(weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):  # so that evaluation does not rest on zeros and ones
            module.running_mean.uniform_(-0.5, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)

    def our_name(name):
        name = name.replace("downsample", "shortcut").replace("fc.", "head.")
        if name.startswith(("conv1.", "bn1.")):
            return name.replace("conv1", "stem.0").replace("bn1", "stem.1")
        return name.replace("bn", "norm")

    ours = resnet18((3, 224, 224), 1000, stem="imagenet").eval()
    ours.load_state_dict({our_name(name): value for name, value in theirs.state_dict().items()})
    images = torch.rand(2, 3, 64, 64, generator=generator)
    with torch.no_grad():
        logits = theirs(images)
        assert not torch.allclose(logits[0], logits[1], rtol=0.01)  # the images do reach the head
        assert torch.equal(ours(images), logits)


def test_maxpooling_takes_four_times_fewer_flops():
    def flops(stem):
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            resnet18(stem=stem)(torch.zeros(1, 3, 32, 32))
        return counter.get_total_flops()

    # The stem costs the same in both; all after it a quarter.
    assert flops("cifar") / flops("cifar_maxpool") == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("stem", ["cifar", "cifar_maxpool", "imagenet"])
def test_initial_convolutions_follow_the_code_of_each_stem(stem):
    conv = resnet18(stem=stem).layer4[0].conv1  # 256 to 512 channels, 3x3
    fan_in, fan_out = 256 * 9, 512 * 9
    expected = math.sqrt(1 / (3 * fan_in)) if stem == "cifar" else math.sqrt(2 / fan_out)
    assert conv.weight.std().item() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("stem", "size"), [("cifar", 32), ("cifar_maxpool", 16), ("imagenet", 8)])
def test_first_layer_sees_the_size_that_the_stem_leaves(stem, size):
    sizes = []
    model = resnet18(width=4, stem=stem)
    model.layer1.register_forward_hook(lambda module, inputs, output: sizes.append(inputs[0].shape[-2:]))
    model(torch.zeros(2, 3, 32, 32))
    assert sizes == [(size, size)]


def test_there_is_no_bias_before_batchnorm():
    assert all(module.bias is None for module in resnet18(width=4).modules() if isinstance(module, nn.Conv2d))
