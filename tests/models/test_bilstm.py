"""The recurrent network compared with torch's packed bidirectional layers; padding never matters."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from warmstart_sim.errors import WarmstartError
from warmstart_sim.models import build, layout
from warmstart_sim.registry import STRATEGIES
from warmstart_sim.seeding import scoped_torch_seed, torch_generator
from warmstart_sim.types import RoundContext

VOCABULARY, EMBEDDING, HIDDEN, CLASSES = 30, 5, 4, 3
TORCH = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
LENGTHS = torch.tensor([7, 4, 1, 6])

every_kind = pytest.mark.parametrize(
    ("cell", "pooling"), [(cell, pooling) for cell in TORCH for pooling in ("last", "mean")]
)


def make(seed=0, **options) -> nn.Module:
    options = {"embedding": EMBEDDING, "hidden": HIDDEN, **options}
    with scoped_torch_seed(seed, "test"):
        return build("bilstm", options, (20,), CLASSES, vocabulary_size=VOCABULARY)


def texts() -> torch.Tensor:
    """Four texts of lengths 7, 4, 1 and 6, padded to 7."""
    tokens = torch.randint(1, VOCABULARY, (4, 7), generator=torch.Generator().manual_seed(0))
    return tokens * (torch.arange(7) < LENGTHS[:, None])


def gradients(model: nn.Module, batches: list[torch.Tensor]) -> list[torch.Tensor]:
    """The gradient of a weighted sum of all logits."""
    model.zero_grad()
    weights = torch.arange(1, CLASSES + 1, dtype=model.head.weight.dtype)
    for tokens in batches:
        (model(tokens).tanh() @ weights).sum().backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


# In float32 the LSTM runs in another kernel (oneDNN's) than in float64.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@every_kind
def test_padding_and_other_texts_change_no_prediction_and_no_gradient(cell, pooling, dtype, tolerance):
    model = make(cell=cell, pooling=pooling, layers=3).to(dtype).eval()
    tokens = texts()
    padded = torch.cat((tokens, torch.zeros(4, 6, dtype=torch.int64)), dim=1)
    alone = [tokens[k : k + 1, :length] for k, length in enumerate(LENGTHS)]
    expected = torch.cat([model(text) for text in alone])
    for batch in (tokens, padded):
        torch.testing.assert_close(model(batch), expected, rtol=0, atol=tolerance)
        for ours, theirs in zip(gradients(model, [batch]), gradients(model, alone), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=10 * tolerance)


def pickled(model: nn.Module, cell: str, pooling: str, tokens: torch.Tensor) -> tuple[torch.Tensor, nn.Module]:
    """Logits of torch's bidirectional network for packed texts with the model's weights, and that network."""
    theirs = TORCH[cell](EMBEDDING, HIDDEN, num_layers=2, bidirectional=True, batch_first=True).double()
    for k, layer in enumerate((model.layer1, model.layer2)):
        for direction, ending in ((layer.left_to_right, ""), (layer.right_to_left, "_reverse")):
            for name, parameter in direction.named_parameters():
                getattr(theirs, f"{name.removesuffix('_l0')}_l{k}{ending}").data.copy_(parameter)
    sequence = pack_padded_sequence(model.embedding(tokens), LENGTHS, batch_first=True, enforce_sorted=False)
    outputs, last = theirs(sequence)
    if pooling == "mean":
        features = pad_packed_sequence(outputs, batch_first=True)[0].sum(1) / LENGTHS[:, None]
    else:
        last = last[0] if cell == "lstm" else last
        features = torch.cat((last[-2], last[-1]), dim=1)
    return features @ model.head.weight.T + model.head.bias, theirs


@every_kind
def test_it_equals_torchs_bidirectional_network_on_packed_texts(cell, pooling):
    model = make(cell=cell, pooling=pooling, dropout=0).double()
    logits, theirs = pickled(model, cell, pooling, texts())
    torch.testing.assert_close(model(texts()), logits, rtol=0, atol=1e-12)

    logits.square().sum().backward()
    embedding, head = model.embedding.weight.grad.clone(), model.head.weight.grad.clone()
    model.zero_grad()
    model(texts()).square().sum().backward()
    torch.testing.assert_close(model.embedding.weight.grad, embedding, rtol=0, atol=1e-11)
    torch.testing.assert_close(model.head.weight.grad, head, rtol=0, atol=1e-11)
    ours = model.layer1.right_to_left.weight_hh_l0.grad
    torch.testing.assert_close(ours, theirs.weight_hh_l0_reverse.grad, rtol=0, atol=1e-11)


@every_kind
def test_a_forward_pass_does_not_synchronise_with_the_device(cell, pooling):
    with FakeTensorMode():  # tensors without values: whatever reads one raises
        model = make(cell=cell, pooling=pooling)
        logits = model(torch.ones(4, 5, dtype=torch.int64))
        logits.sum().backward()
    assert logits.shape == (4, CLASSES)


@every_kind
def test_a_text_without_tokens_counts_as_one_padding(cell, pooling):
    model = make(cell=cell, pooling=pooling)
    empty = torch.zeros(2, 5, dtype=torch.int64)
    assert all(gradient.isfinite().all() for gradient in gradients(model, [empty]))
    logits = model.eval()(empty)
    assert logits.isfinite().all()
    torch.testing.assert_close(logits, model(empty[:, :1]))


@pytest.mark.parametrize("cell", TORCH)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_number_of_parameters_equals_the_formula(cell, layers):
    model = make(cell=cell, layers=layers)

    def one_direction(features):
        return GATES[cell] * HIDDEN * (features + HIDDEN + 2)  # torch has two biases

    recurrent = 2 * one_direction(EMBEDDING) + (layers - 1) * 2 * one_direction(2 * HIDDEN)
    expected = VOCABULARY * EMBEDDING + recurrent + (2 * HIDDEN + 1) * CLASSES
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    assert model.block_names == ("embedding", *(f"layer{k + 1}" for k in range(layers)))


def test_it_starts_from_pytorchs_default_initialisation():
    model = make(cell="gru", layers=1)
    with scoped_torch_seed(0, "test"):
        layers = nn.Embedding(VOCABULARY, EMBEDDING, padding_idx=0), nn.GRU(EMBEDDING, HIDDEN)
    assert torch.equal(model.embedding.weight, layers[0].weight)
    ours = model.layer1.left_to_right.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in layers[1].state_dict().items())


def test_dropout_drops_inputs_of_layers_and_head_and_only_while_training():
    model = make(dropout=0.25, embedding=64, hidden=64)
    shares = {}

    def record(name):
        return lambda module, inputs: shares.__setitem__(name, (inputs[0] == 0).double().mean().item())

    for name in ("layer1", "layer2", "head"):
        model.get_submodule(name).register_forward_pre_hook(record(name))
    tokens = torch.randint(1, VOCABULARY, (64, 20), generator=torch.Generator().manual_seed(0))
    model.train()(tokens)
    assert shares == pytest.approx(dict.fromkeys(shares, 0.25), abs=0.03)
    model.eval()(tokens)
    assert shares == {"layer1": 0, "layer2": 0, "head": 0}


def strategy_on(model: nn.Module, **options) -> tuple[dict, dict, dict]:
    previous, fresh = make(seed=1).state_dict(), make(seed=2).state_dict()
    context = RoundContext(1, layout(model), lambda purpose: torch_generator(0, purpose, 1))
    return STRATEGIES.get("shrink_perturb")(**options)(previous, fresh, context), previous, fresh


def test_shrink_perturb_is_the_formula_for_embedding_and_recurrent_weights_alike():
    start, previous, fresh = strategy_on(make(), lam=0.6, sigma=0.01)
    for name, tensor in start.items():
        torch.testing.assert_close(tensor, 0.6 * previous[name] + 0.01 * fresh[name], rtol=1e-6, atol=0)
    assert not start["embedding.weight"][0].any()  # the padding's row


@pytest.mark.parametrize("part", ["head", "body"])
def test_shrink_perturb_of_the_head_or_of_the_body_leaves_the_rest(part):
    start, previous, _ = strategy_on(make(), lam=0.6, sigma=0.01, parameters=part)
    changed = {name for name, tensor in start.items() if not torch.equal(tensor, previous[name])}
    head = {"head.weight", "head.bias"}
    assert changed == (head if part == "head" else start.keys() - head)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.AdamW])
def test_the_paddings_embedding_stays_zero_while_training(optimizer):
    model = make()
    start = model.embedding.weight.clone()
    step = optimizer(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        step.zero_grad()
        nn.functional.cross_entropy(model(texts()), torch.tensor([0, 1, 2, 0])).backward()
        step.step()
    assert not model.embedding.weight[0].any()
    assert not torch.equal(model.embedding.weight, start)


@pytest.mark.parametrize(
    ("shape", "size", "found"),
    [
        ((3, 32, 32), None, r"shape \(3, 32, 32\) and vocabulary_size is None"),
        ((64,), None, r"shape \(64,\) and vocabulary_size is None"),
    ],
)
def test_inputs_other_than_tokens_are_a_one_line_error(shape, size, found):
    with pytest.raises(WarmstartError, match=f"^bilstm needs tokens .*{found}; choose a data set of texts$"):
        build("bilstm", {}, shape, 2, vocabulary_size=size)


def test_the_vocabulary_size_comes_from_the_data_unless_set_in_the_options():
    assert build("bilstm", {}, (9,), 2, vocabulary_size=50).embedding.num_embeddings == 50
    assert build("bilstm", {"vocabulary_size": 60}, (9,), 2, vocabulary_size=50).embedding.num_embeddings == 60
