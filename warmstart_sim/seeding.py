"""Every random draw comes from a generator made from (seed, purpose, place): nothing touches the global ones.

Two draws share a generator only if their seed, purpose and place (round, epoch ...) are the same. So all arms of a
seed see the same split, chunks, fresh weights and batch order, a resumed epoch draws what the interrupted one would
have drawn, and no generator's state has to be stored in a checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, purpose: str, *place: int) -> int:
    """A 63-bit seed for one purpose at one place: the hash of all three.

    Args:
        seed: The experiment's seed.
        purpose: What is drawn, such as "order" or "init".
        *place: Where, such as the round and the epoch.

    >>> derive_seed(0, "order", 1, 2) == derive_seed(0, "order", 1, 2) != derive_seed(0, "order", 2, 1)
    True
    """
    text = "/".join([str(seed), purpose, *map(str, place)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def numpy_generator(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """A NumPy generator for one purpose at one place."""
    return np.random.default_rng(derive_seed(seed, purpose, *place))


def torch_generator(seed: int, purpose: str, *place: int, device: str | torch.device = "cpu") -> torch.Generator:
    """A torch generator for one purpose at one place, on `device`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(seed, purpose, *place))


@contextlib.contextmanager
def scoped_torch_seed(seed: int, purpose: str, *place: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Seeds torch's default generators inside the block only, and puts them back afterwards.

    For the two things that take no generator: a module's own initialisation, and dropout.
    """
    import torch

    cuda = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(derive_seed(seed, purpose, *place))
        for each in cuda:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(derive_seed(seed, purpose, *place))
        yield
