"""Torch modules of the recurrent network. Models import it only when they are built, because it imports torch.

The texts of a batch are padded at the end. Packed sequences would need their lengths on the CPU and so synchronise with
the device. Instead, each direction is a separate layer, and the right-to-left layer reads texts that are reversed
within their length. Padding then follows the text in both directions, and the states at padding are never used.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

CELLS: dict[str, type[nn.LSTM | nn.GRU | nn.RNN]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class BidirectionalLayer(nn.Module):
    """A recurrent layer that reads texts from left to right and from right to left."""

    def __init__(self, cell: str, features: int, hidden: int) -> None:
        super().__init__()
        self.left_to_right = CELLS[cell](features, hidden)
        self.right_to_left = CELLS[cell](features, hidden)

    def forward(self, inputs: torch.Tensor, reversal: torch.Tensor) -> torch.Tensor:
        """Maps (length, n, features) to the states of both directions, (length, n, 2 * hidden)."""
        onward, _ = self.left_to_right(inputs)
        backward, _ = self.right_to_left(_reordered(inputs, reversal))
        return torch.cat((onward, _reordered(backward, reversal)), dim=2)


class RecurrentClassifier(nn.Module):
    """Embedding, bidirectional layers, pooling over a text's tokens, and a linear head.

    Attributes:
        block_names: The embedding and the recurrent layers.
        head_name: The linear head.
    """

    def __init__(
        self,
        cell: str,
        vocabulary_size: int,
        embedding: int,
        hidden: int,
        layers: int,
        classes: int,
        dropout: float,
        pooling: Literal["last", "mean"],
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding, padding_idx=0)
        self._layers = tuple(f"layer{k + 1}" for k in range(layers))
        for k, name in enumerate(self._layers):
            self.add_module(name, BidirectionalLayer(cell, 2 * hidden if k else embedding, hidden))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * hidden, classes)
        self._pool = {"last": _last_states, "mean": _mean_state}[pooling]
        self.block_names = ("embedding", *self._layers)
        self.head_name = "head"

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Maps tokens (n, length), zeros after each text, to logits (n, classes)."""
        lengths = (tokens != 0).sum(1).clamp(min=1)
        reversal = _reversal(lengths, tokens.shape[1])
        states = self.embedding(tokens.T)  # time first, as the recurrent kernels want it
        for name in self._layers:
            states = self.get_submodule(name)(self.dropout(states), reversal)
        logits: torch.Tensor = self.head(self.dropout(self._pool(states, lengths)))
        return logits


def _reversal(lengths: torch.Tensor, length: int) -> torch.Tensor:
    """Returns the indices that reverse each text of a flattened (length, n) batch and leave its padding in place."""
    time = torch.arange(length, device=lengths.device)[:, None]
    source = torch.where(time < lengths, lengths - 1 - time, time)
    return (source * len(lengths) + torch.arange(len(lengths), device=lengths.device)).flatten()


def _reordered(states: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    # Copies whole states; a gather along time would index every feature separately and take four times as long.
    return states.flatten(0, 1).index_select(0, order).view_as(states)


def _last_states(states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The left-to-right state at a text's last token and the right-to-left state at its first."""
    onward, backward = states.chunk(2, dim=2)
    return torch.cat((onward[lengths - 1, torch.arange(len(lengths), device=lengths.device)], backward[0]), dim=1)


def _mean_state(states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    inside = torch.arange(len(states), device=lengths.device)[:, None] < lengths
    return (states * inside[:, :, None]).sum(0) / lengths[:, None]
