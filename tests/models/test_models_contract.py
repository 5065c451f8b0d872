"""Properties of every registered model, at the shapes of digits, CIFAR and MNIST, or on texts."""

import subprocess
import sys

import pytest
import torch

from warmstart_sim.models import build, check_output, layout
from warmstart_sim.registry import MODELS
from warmstart_sim.seeding import scoped_torch_seed

NAMES = MODELS.names()
TOKENS = [name for name in NAMES if MODELS.has_trait(name, "tokens")]
SHAPES = {name: [(12,), (1,)] if name in TOKENS else [(1, 8, 8), (3, 32, 32), (1, 28, 28)] for name in NAMES}
QUICK = {
    "resnet18": {"width": 4},
    "bilstm": {"hidden": 8},
    "simple_cnn": {"width": 4},
    "vgg16": {"width": 4},
    "mobilenet": {"widths": (4, 8, 8, 16)},
    "resnet50": {"width": 4},
    "preact_resnet18": {"width": 4},
    "mobilenet_v2": {"width": 4},
    "vit": {"width": 8, "depth": 2},
    "decoder": {"width": 8, "heads": 2},
}
VOCABULARY = 20


def make(name, shape, classes=7):
    return build(name, QUICK.get(name, {}), shape, classes, VOCABULARY if name in TOKENS else None)


def label_shape(name, shape):
    return shape if MODELS.has_trait(name, "next_token") else ()


def example(name, shape, n):
    generator = torch.Generator().manual_seed(0)
    if name in TOKENS:
        return torch.randint(1, VOCABULARY, (n, *shape), generator=generator)
    return torch.rand(n, *shape, generator=generator)


@pytest.mark.parametrize(("name", "shape"), [(name, shape) for name in NAMES for shape in SHAPES[name]])
def test_output_is_logits_in_both_modes(name, shape):
    model = make(name, shape)
    inputs = example(name, shape, 3)
    of_labels = label_shape(name, shape)
    assert model.train()(inputs).shape == (3, 7, *of_labels)
    assert model.eval()(inputs).shape == (3, 7, *of_labels)
    check_output(model, shape, 7, tokens=name in TOKENS, label_shape=of_labels)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_dense_layers_and_head_contain_every_entry_of_the_state_dict_once(name):
    model = make(name, SHAPES[name][0])
    assert model.block_names == layout(model).blocks
    assert model.head_name == layout(model).head
    modules = dict(model.named_modules())
    above = [each for each in modules if each in ("dense", "dense1", "dense2", "norm")]
    parts = [*model.block_names, *above, model.head_name]
    held = [f"{part}.{entry}" for part in parts for entry in modules[part].state_dict()]
    assert sorted(held) == sorted(model.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_layout_finds_the_declared_blocks_and_head_by_itself(name):
    model = make(name, SHAPES[name][0])
    told = layout(model)
    del model.block_names, model.head_name
    found = layout(model)
    assert (found.head, found.blocks[: len(told.blocks)]) == (told.head, told.blocks)
    assert {name.rstrip("12") for name in found.blocks[len(told.blocks) :]} <= {"dense", "norm"}


@pytest.mark.parametrize("name", NAMES)
def test_blocks_in_order_then_head_make_the_forward_pass(name):
    """Each block's input comes from the previous block: hooks run in the order of `block_names`."""
    model = make(name, SHAPES[name][0]).eval()
    seen = []
    for part in [*model.block_names, model.head_name]:
        model.get_submodule(part).register_forward_hook(lambda *_, part=part: seen.append(part))
    logits = model(example(name, SHAPES[name][0], 1))
    assert seen == [*model.block_names, model.head_name]
    assert logits.shape == (1, 7, *label_shape(name, SHAPES[name][0]))


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_round_trip_gives_the_same_function(name):
    shape = SHAPES[name][0]
    source, target = make(name, shape), make(name, shape)
    inputs = example(name, shape, 4)
    source.train()(inputs)  # so that buffers are not at their initial values
    assert not torch.equal(source.eval()(inputs), target.eval()(inputs))
    target.load_state_dict(source.state_dict())
    assert torch.equal(source.eval()(inputs), target.eval()(inputs))


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_gives_equal_fresh_weights_and_leaves_the_global_generator(name):
    before = torch.random.get_rng_state()
    models = []
    for seed in (0, 0, 1):
        with scoped_torch_seed(seed, "init", 0):
            models.append(make(name, SHAPES[name][0]).state_dict())
    assert torch.equal(torch.random.get_rng_state(), before)
    first, again, other = models
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", NAMES)
def test_options_have_a_schema_with_defaults_that_build(name):
    options = MODELS.schema(name)().model_dump()
    shape = SHAPES[name][0]
    model = build(name, {**options, **QUICK.get(name, {})}, shape, 3, VOCABULARY if name in TOKENS else None)
    assert model(example(name, shape, 2)).shape == (2, 3, *label_shape(name, shape))


def test_names_schemas_and_summaries_are_known_without_torch():
    code = (
        "import sys, warmstart_sim.models\n"
        "from warmstart_sim.registry import MODELS\n"
        "assert all(MODELS.summary(name) and MODELS.schema(name).model_json_schema() for name in MODELS.names())\n"
        "assert not {'torch', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
