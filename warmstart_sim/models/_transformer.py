"""The layers of the decoder-only text model. Models import it only when they are built, because it imports torch."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from warmstart_sim.models._layers import Network


class NextTokenNetwork(Network):
    """A `Network` on tokens, whose logits have the classes in front of the positions, as `cross_entropy` takes them."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Maps tokens (n, length) to logits (n, classes, length)."""
        hidden = tokens
        for module in self:
            hidden = module(hidden)
        return hidden.transpose(1, 2)


class TokensAndPositions(nn.Module):
    """The sum of each token's learned vector and that of its position."""

    def __init__(self, vocabulary_size: int, length: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary_size, width)
        self.position = nn.Parameter(torch.empty(length, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws all vectors with the deviation of GPT-2."""
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.position, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Maps tokens (n, length) to (n, length, width)."""
        vectors: torch.Tensor = self.token(tokens) + self.position[: tokens.shape[1]]
        return vectors


class CausalLayer(nn.Module):
    """A pre-norm layer of a decoder: z + attention(LN(z)), then z + MLP(LN(z)); no position sees a later one.

    Args:
        width: Features of a token, a multiple of `heads`.
        heads: Attention heads.
        dropout: In the attention and behind both branches.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.p = heads, dropout
        self.norm1 = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, 4 * width)
        self.activation = nn.GELU()
        self.linear2 = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Maps (n, length, width) to the same shape."""
        attended = inputs + self.dropout(self._attention(self.norm1(inputs)))
        hidden = self.activation(self.linear1(self.norm2(attended)))
        outputs: torch.Tensor = attended + self.dropout(self.linear2(hidden))
        return outputs

    def _attention(self, inputs: torch.Tensor) -> torch.Tensor:
        # (n, length, 3 * width) -> three of (n, heads, length, width / heads)
        separate = self.queries_keys_values(inputs).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = separate[0], separate[1], separate[2]
        dropout = self.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout, is_causal=True)
        outputs: torch.Tensor = self.projection(mixed.transpose(1, 2).flatten(2))
        return outputs
