"""Reads checkpoint files, and transfers their weights to a model whose head may have another size."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from warmstart_sim.errors import DataError, WarmstartError
from warmstart_sim.types import Layout, StateDict

if TYPE_CHECKING:
    import torch

STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")  # under which training scripts store a state dict
NAME_PREFIXES = ("module.", "_orig_mod.")  # added by DataParallel and torch.compile


def find_checkpoint(path: Path) -> Path:
    """Returns the path of an existing checkpoint file, with `~` expanded.

    Raises:
        DataError: The file does not exist.
    """
    if not path.expanduser().is_file():
        raise DataError(f"stream.checkpoint: there is no file {path}")
    return path.expanduser()


def file_digest(path: Path) -> str:
    """Returns a digest of a checkpoint file.

    Raises:
        DataError: The file does not exist.
    """
    with find_checkpoint(path).open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Reads a state dict that `torch.save` wrote, to the CPU, without executing code from the file.

    The state dict may be stored under "state_dict", "model_state_dict" or "model". The prefixes "module." and
    "_orig_mod." are removed if all names have them.

    Raises:
        DataError: The file does not exist, or does not contain a state dict.
    """
    import torch

    try:
        with warnings.catch_warnings():  # torch warns of other pickles before it rejects them
            warnings.simplefilter("ignore")
            found = torch.load(find_checkpoint(path), map_location="cpu", weights_only=True)
    except WarmstartError:
        raise
    except Exception as error:  # torch.load passes on whatever the unpickler or the zip reader raises
        raise DataError(
            f"stream.checkpoint: {path} is not a file of plain weights, or is truncated ({type(error).__name__}); "
            "save `model.state_dict()` with torch.save"
        ) from error
    for name in STATE_DICT_KEYS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if (
        not isinstance(found, Mapping)
        or not found
        or not all(isinstance(name, str) and isinstance(each, torch.Tensor) for name, each in found.items())
    ):
        raise DataError(f"stream.checkpoint: {path} holds no state dict (a mapping of names to tensors)")
    return _without_prefix(found)


def _without_prefix(weights: Mapping[str, Any]) -> dict[str, Any]:
    for prefix in NAME_PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            return _without_prefix({name.removeprefix(prefix): tensor for name, tensor in weights.items()})
    return dict(weights)


def transfer_weights(
    weights: StateDict, fresh: StateDict, layout: Layout, head: Literal["keep", "fresh"] = "keep"
) -> dict[str, torch.Tensor]:
    """Transfers weights trained on another task: all of the body, and the head if its shape agrees.

    If the head is missing, has another shape, or `head` is "fresh", the whole head comes from `fresh`. It is then the
    same as random init's with this seed (and shrink-perturb yields (lambda + sigma) times that head).

    Args:
        weights: The other task's state dict.
        fresh: A fresh state of the model.
        layout: Says which parameters belong to the head.
        head: "keep" or "fresh".

    Raises:
        WarmstartError: The body has another architecture; the message names the first entry that differs.
    """
    own_head = {name for name in fresh if layout.in_head(name)}
    head_agrees = all(name in weights and weights[name].shape == fresh[name].shape for name in own_head)
    taken_fresh = own_head if head == "fresh" or not head_agrees else set()
    body = [name for name in fresh if name not in own_head]
    surplus = [name for name in weights if name not in fresh and not layout.in_head(name)]
    problem = next((text for name in body if (text := _mismatch(name, weights, fresh))), "")
    if problem or surplus:
        problem = problem or f"they have '{surplus[0]}', which the model does not have"
        raise WarmstartError(f"the pre-trained weights have another architecture: {problem}")
    return {
        name: tensor.clone() if name in taken_fresh else weights[name].to(tensor.device, tensor.dtype)
        for name, tensor in fresh.items()
    }


def _mismatch(name: str, weights: StateDict, fresh: StateDict) -> str:
    if name not in weights:
        return f"they lack '{name}'"
    found, expected = tuple(weights[name].shape), tuple(fresh[name].shape)
    return "" if found == expected else f"'{name}' is {found} there and {expected} in the model"
