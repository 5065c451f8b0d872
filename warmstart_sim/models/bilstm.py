"""The bidirectional recurrent network, for texts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt

from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import MODELS


@MODELS.register("bilstm", "tokens", "trains_all", "no_hidden_units")
def bilstm(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    vocabulary_size: Annotated[int, Field(ge=2)] | None = None,
    cell: Literal["lstm", "gru", "rnn"] = "lstm",
    embedding: PositiveInt = 100,
    hidden: PositiveInt = 128,
    layers: PositiveInt = 2,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    pooling: Literal["last", "mean"] = "last",
) -> Any:
    """Bidirectional recurrent network for texts: embedding, recurrent layers in both directions, a linear head.

    The "two-layer bidirectional RNN" of Ash & Adams 2020 (Figure 13); the paper gives no more details. Padding never
    changes a prediction: the right-to-left direction starts at each text's own last token. A text without tokens is
    treated as one padding token.

    All layers start from PyTorch's default initialisation: the embedding standard normal with zeros for the padding,
    the recurrent weights and biases uniform in +- 1 / sqrt(hidden).

    Args:
        input_shape: (length,): the maximum number of tokens of a text.
        classes: The number of logits.
        vocabulary_size: The number of tokens. By default the data set's.
        cell: "lstm" (default), "gru", or "rnn", Elman's with tanh.
        embedding: Features of a token. Default 100.
        hidden: Units per direction and layer. Default 128.
        layers: Recurrent layers. Default 2.
        dropout: The probability in [0, 1) of dropping an input of a recurrent layer or of the head. Default 0.5.
        pooling: The head's input: "last" (default) is the final state of both directions, that is, at the text's last
            and at its first token; "mean" is the mean of the last layer's states over the tokens.

    Returns:
        A module with blocks embedding, layer1, layer2, ... and the head `head`.

    Raises:
        WarmstartError: The inputs are not tokens, or their number is unknown.
    """
    if len(input_shape) != 1 or vocabulary_size is None:
        raise WarmstartError(
            f"bilstm needs tokens (length,) and their vocabulary_size, but one input has shape {tuple(input_shape)} "
            f"and vocabulary_size is {vocabulary_size}; choose a data set of texts"
        )
    from warmstart_sim.models._recurrent import RecurrentClassifier

    return RecurrentClassifier(cell, vocabulary_size, embedding, hidden, layers, classes, dropout, pooling)
