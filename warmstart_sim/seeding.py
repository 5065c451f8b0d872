"""Seeds for every random draw, derived from (seed, purpose, indices); the global generators are never used.

Two draws use the same random numbers only if their seed, purpose and indices (round, epoch, ...) are equal. So all arms
of a seed get the same split, chunks, fresh weights and batch order, a resumed epoch draws the same numbers as the
interrupted one, and checkpoints need not store generator states.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, purpose: str, *indices: int) -> int:
    """Hashes the arguments to a 63-bit seed.

    Args:
        seed: The experiment's seed.
        purpose: What is drawn, such as "order" or "init".
        *indices: For example the round and the epoch.

    >>> derive_seed(0, "order", 1, 2) == derive_seed(0, "order", 1, 2) != derive_seed(0, "order", 2, 1)
    True
    """
    text = "/".join([str(seed), purpose, *map(str, indices)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """Returns a NumPy generator with the derived seed."""
    return np.random.default_rng(derive_seed(seed, purpose, *indices))


def torch_generator(seed: int, purpose: str, *indices: int, device: str | torch.device = "cpu") -> torch.Generator:
    """Returns a torch generator on `device` with the derived seed."""
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(seed, purpose, *indices))


@contextlib.contextmanager
def scoped_torch_seed(seed: int, purpose: str, *indices: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Seeds torch's default generators inside the block, and restores their states afterwards.

    Needed for the two things that accept no generator: the initialisation of modules, and dropout.
    """
    import torch

    cuda = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(derive_seed(seed, purpose, *indices))
        for each in cuda:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(derive_seed(seed, purpose, *indices))
        yield
