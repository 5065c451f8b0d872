"""Building a user's model, checking its output, and finding its blocks and head."""

import pytest
import torch
import torchvision
from torch import nn

from warmstart_sim.errors import WarmstartError
from warmstart_sim.models import build, check_output, layout


class WithNorms(nn.Module):
    """A body inside a wrapper, all kinds of normalisation, a classifier of two linear layers."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.ReLU())
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Sequential(
            nn.Linear(4, 5), nn.LayerNorm(5), nn.BatchNorm1d(5), nn.Linear(5, 3, bias=False)
        )

    def forward(self, inputs):
        return self.classifier(self.pool(self.body(self.scale * inputs)))


def linear_model(input_shape, classes, *, bias=True):
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0], classes, bias=bias))


def test_a_function_a_class_and_a_dotted_name_build():
    assert layout(build(linear_model, {"bias": False}, (5,), 2)).parameters == {"1.weight"}
    assert isinstance(build(lambda shape, classes: WithNorms(), {}, (1, 8, 8), 3), WithNorms)
    dotted = build("torchvision.models.resnet:BasicBlock", {}, 4, 4)
    assert isinstance(dotted, torchvision.models.resnet.BasicBlock)


def fails(input_shape, classes):
    raise ValueError("first line\nsecond line")


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("resnet", {}, r"unknown model 'resnet'; did you mean 'resnet(18|50)'\? \(there are: .*\)"),
        ("no_such_module:build", {}, r"model 'no_such_module:build': cannot import no_such_module .*"),
        (linear_model, {"widht": 3}, r"model 'linear_model' cannot be built .*\(5,\): TypeError: .*'widht'.*"),
        (fails, {}, r"model 'fails' cannot be built for inputs of shape \(5,\): ValueError: first line"),
        (lambda shape, classes: "net", {}, r"model '.*<lambda>' returned a str, not a torch.nn.Module"),
        (nn.Linear(5, 2), {}, r"model 'Linear' is a Linear; pass a function f\(input_shape, classes, \*\*options\) .*"),
        ("math:pi", {}, r"model 'math:pi' is a float; pass a function .*"),
        ("resnet18", {}, r"model 'resnet18' needs images \(channels, height, width\), but one input has shape \(5,\)"),
    ],
)
def test_a_model_that_cannot_be_built_is_a_one_line_error(name, options, line):
    with pytest.raises(WarmstartError, match=f"^{line}$"):
        build(name, options, (5,), 2)


def test_layout_of_a_model_without_declared_blocks_and_head():
    found = layout(WithNorms())
    assert found.head == "classifier.3"
    assert found.blocks == ("body", "classifier.0", "classifier.1", "classifier.2")
    norms = ("body.1", "body.2", "classifier.1", "classifier.2")
    assert found.norm_affine == {f"{norm}.{entry}" for norm in norms for entry in ("weight", "bias")}
    assert found.parameters == {name for name, _ in WithNorms().named_parameters()}
    assert found.in_head("classifier.3.weight")


@pytest.mark.parametrize(
    ("name", "head", "blocks"),
    [
        ("resnet18", "fc", ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")),
        ("squeezenet1_1", "classifier.1", ("features",)),  # its head is a convolution
        ("vgg11", "classifier.6", ("features", "classifier.0", "classifier.3")),
    ],
)
def test_layout_of_torchvision_models(name, head, blocks):
    with torch.device("meta"):
        found = layout(getattr(torchvision.models, name)(weights=None))
    assert (found.head, found.blocks) == (head, blocks)


def test_layout_uses_declared_blocks_and_head():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    model.block_names, model.head_name = ("0",), "1"
    assert layout(model).blocks == ("0",)
    assert layout(model).head == "1"
    model.head_name = "heat"
    with pytest.raises(WarmstartError, match=r"^unknown module of the model 'heat'"):
        layout(model)


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.Sequential(nn.Flatten())])
def test_a_model_without_a_nameable_head_is_a_one_line_error(model):
    with pytest.raises(WarmstartError, match="no submodule that could be its head"):
        layout(model)


def test_tied_parameters_are_listed_under_all_their_names():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    assert layout(model).parameters == set(model.state_dict())


@pytest.mark.parametrize(
    ("model", "shape", "line"),
    [
        (nn.Linear(4, 3), (5,), r"the model cannot take inputs of shape \(5,\): RuntimeError: .*"),
        (nn.Conv2d(1, 3, 9), (1, 4, 4), r"the model cannot take inputs of shape \(1, 4, 4\): RuntimeError: .*"),
        (nn.Linear(4, 2), (4,), r"the model must return logits of shape \(2, 3\) .*, but it returned \(2, 2\)"),
        (
            nn.Linear(4, 3),
            (6, 4),
            r"the model must return logits of shape \(2, 3\) for two inputs, but it returned \(2, 6, 3\)",
        ),
        (
            nn.LSTM(4, 3),
            (6, 4),
            r"the model must return logits of shape \(2, 3\) .*, but it returned a tuple of .*; wrap it .*",
        ),
    ],
)
def test_wrong_output_is_a_one_line_error(model, shape, line):
    with pytest.raises(WarmstartError, match=f"^{line}$"):
        check_output(model, shape, 3)


def test_checking_the_output_changes_neither_buffers_nor_modes():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.norm, self.head = nn.BatchNorm1d(4).eval(), nn.Linear(4, 3)

        def forward(self, inputs):
            self.calls += 1
            return self.head(self.norm(inputs))

    model = Counts()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_output(model, (4,), 3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (model.training, model.norm.training) == (True, False)
    assert model.head.weight.grad is None


def test_tokens_reach_an_embedding():
    model = nn.Sequential(nn.EmbeddingBag(10, 3))
    check_output(model, (5,), 3, tokens=True)
    with pytest.raises(WarmstartError, match="cannot take inputs"):
        check_output(model, (5,), 3)


def test_a_model_for_texts_must_accept_shorter_texts():
    fixed = nn.Sequential(nn.Embedding(10, 2), nn.Flatten(), nn.Linear(10, 3))
    with pytest.raises(WarmstartError, match=r"^the model cannot take inputs of shape \(3,\): "):
        check_output(fixed, (5,), 3, tokens=True)
