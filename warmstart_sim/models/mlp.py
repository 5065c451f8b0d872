"""The multilayer perceptron, on flattened inputs."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field

from warmstart_sim.models._options import Activation, Init, KeepProbability
from warmstart_sim.registry import MODELS


@MODELS.register("mlp", "trains_all", without_hidden_units={"activation": "crelu"})
def mlp(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    widths: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (100, 100, 100),
    activation: Activation = "tanh",
    p: KeepProbability | None = None,
    bias: bool = True,
    batch_norm: bool = False,
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None,
    init: Init | None = None,
) -> Any:
    """Multilayer perceptron: hidden layers of linear, (BatchNorm,) activation, (dropout,) and a linear head.

    The papers' "three layers" of 100 units can mean two things. Kireev et al. 2021 (section 3.1 and their code) use
    three hidden layers and the head: the default here. The public code of Ash & Adams 2020 has three linear layers in
    total, that is, two hidden ones: `widths: [100, 100]`. Both start from PyTorch's default initialisation.

    Without biases and BatchNorm, and with ReLU, shrinking all weights by lambda > 0 scales the logits by
    lambda^layers and changes no prediction (Ash & Adams 2020, Proposition 1).

    Args:
        input_shape: Any shape; inputs are flattened.
        classes: The number of logits.
        widths: Units of the hidden layers, from input to output.
        activation: The nonlinearity after each hidden layer: "tanh" (default), "relu", "aid" (interval-wise dropout) or
            "crelu" (ReLU of x and of -x, which gives the next layer twice as many inputs). The last two do not stack.
        p: Of "aid": in training, positive values are kept with this probability, and others with 1 - p. Default 0.9.
        bias: Whether the linear layers, including the head, have biases.
        batch_norm: Whether to apply BatchNorm before each activation.
        dropout: The probability with which a hidden unit is zero in a training step, in [0, 1). Default none. With
            dropout, steps are not stacked.
        init: "he": He normal, biases zero; "xavier": Xavier uniform, biases zero. Default none: PyTorch's.

    Returns:
        A module with blocks hidden1, hidden2, ... and the head `head`.
    """
    from torch import nn

    from warmstart_sim.models._layers import Network, activation_layer, initialize

    def hidden(units_in: int, units: int) -> nn.Module:
        norm = [nn.BatchNorm1d(units)] if batch_norm else []
        drop = [nn.Dropout(dropout)] if dropout else []
        return nn.Sequential(nn.Linear(units_in, units, bias=bias), *norm, activation_layer(activation, p)[0], *drop)

    times = activation_layer(activation, p)[1]
    inputs = (math.prod(input_shape), *(times * units for units in widths))
    blocks = {f"hidden{k + 1}": hidden(inputs[k], units) for k, units in enumerate(widths)}
    network = Network(flatten=nn.Flatten(), **blocks, head=nn.Linear(inputs[-1], classes, bias=bias))
    return initialize(network, init or "default")
