"""The vision transformer, against its formula written out."""

import math

import pytest
import torch
from torch.nn import functional as F

from warmstart_sim.errors import WarmstartError
from warmstart_sim.models import build
from warmstart_sim.seeding import scoped_torch_seed


def attention(state, z, heads):
    query, key, value = F.linear(z, state["in_proj_weight"], state["in_proj_bias"]).chunk(3, dim=-1)
    split = [each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (query, key, value)]
    weights = (split[0] @ split[1].transpose(-1, -2) / math.sqrt(split[0].shape[-1])).softmax(-1)
    joined = (weights @ split[2]).transpose(1, 2).flatten(2)
    return F.linear(joined, state["out_proj.weight"], state["out_proj.bias"])


def test_it_is_the_published_formula():
    with scoped_torch_seed(0, "init"):
        model = build("vit", {"width": 12, "depth": 2, "heads": 3, "patch": 2}, (3, 4, 6), 5).eval()
    images = torch.rand(2, 3, 4, 6)
    patches = images.unfold(2, 2, 2).unfold(3, 2, 2).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    weight = model.patches.embedding.weight.flatten(1)
    z = patches @ weight.T + model.patches.embedding.bias + model.patches.position
    for layer in (model.layer1, model.layer2):
        z = z + attention(layer.self_attn.state_dict(), layer.norm1(z), heads=3)
        z = z + layer.linear2(F.gelu(layer.linear1(layer.norm2(z))))
    expected = model.head(model.norm(z).mean(1))
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch": 5}, "patch: found 5; images of 8x8 need a divisor"),
        ({"heads": 3}, "heads: found 3; a width of 64 needs a divisor"),
    ],
)
def test_what_does_not_divide_is_refused(options, message):
    with pytest.raises(WarmstartError, match=message):
        build("vit", options, (1, 8, 8), 10)
