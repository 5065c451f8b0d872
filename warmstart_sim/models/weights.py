"""Weights from elsewhere: reading a file of them, and fitting them to a model whose head has another size."""

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

INSIDE = ("state_dict", "model_state_dict", "model")  # where training scripts put a model's state
WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name


def find_checkpoint(path: Path) -> Path:
    """The file of weights that a user names, with `~` spelt out.

    Raises:
        DataError: There is no such file.
    """
    if not path.expanduser().is_file():
        raise DataError(f"stream.checkpoint: there is no file {path}")
    return path.expanduser()


def file_digest(path: Path) -> str:
    """A digest of a file of weights.

    Raises:
        DataError: There is no such file.
    """
    with find_checkpoint(path).open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file that `torch.save` wrote, on the CPU; nothing in the file is executed.

    It may stand under "state_dict", "model_state_dict" or "model", and all names may begin with "module." or
    "_orig_mod.".

    Raises:
        DataError: There is no such file, or it is no file of weights.
    """
    import torch

    try:
        with warnings.catch_warnings():  # about pickles of other kinds, before it refuses them
            warnings.simplefilter("ignore")
            found = torch.load(find_checkpoint(path), map_location="cpu", weights_only=True)
    except WarmstartError:
        raise
    except Exception as error:  # torch.load raises whatever the unpickler or the zip reader met
        raise DataError(
            f"stream.checkpoint: {path} is not a file of plain weights, or is cut short ({type(error).__name__}); "
            "save `model.state_dict()` with torch.save"
        ) from error
    for name in INSIDE:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if (
        not isinstance(found, Mapping)
        or not found
        or not all(isinstance(name, str) and isinstance(each, torch.Tensor) for name, each in found.items())
    ):
        raise DataError(f"stream.checkpoint: {path} holds no state dict (a mapping of names to tensors)")
    return _unwrapped(found)


def _unwrapped(weights: Mapping[str, Any]) -> dict[str, Any]:
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in weights):
            return _unwrapped({name.removeprefix(prefix): tensor for name, tensor in weights.items()})
    return dict(weights)


def transfer_weights(
    weights: StateDict, fresh: StateDict, layout: Layout, head: Literal["keep", "fresh"] = "keep"
) -> dict[str, torch.Tensor]:
    """The weights of another task in a model for this one: its body, and its head where that has the right size.

    Where the head is absent or of another size, or is not to be kept, all of it is taken from `fresh`: the same head as
    random init's with the same seed. (Shrink-perturb then makes (lambda + sigma) times that head.)

    Args:
        weights: The other task's state dict.
        fresh: A fresh state of the model.
        layout: What is the model's head.
        head: "keep" or "fresh".

    Raises:
        WarmstartError: The body is another architecture's; the message has the first entry that does not fit.
    """
    own_head = {name for name in fresh if layout.in_head(name)}
    fits = all(name in weights and weights[name].shape == fresh[name].shape for name in own_head)
    taken_fresh = own_head if head == "fresh" or not fits else set()
    body = [name for name in fresh if name not in own_head]
    surplus = [name for name in weights if name not in fresh and not layout.in_head(name)]
    problem = next((text for name in body if (text := _misfit(name, weights, fresh))), "")
    if problem or surplus:
        problem = problem or f"they have '{surplus[0]}', which the model does not have"
        raise WarmstartError(f"the pre-trained weights are of another architecture: {problem}")
    return {
        name: tensor.clone() if name in taken_fresh else weights[name].to(tensor.device, tensor.dtype)
        for name, tensor in fresh.items()
    }


def _misfit(name: str, weights: StateDict, fresh: StateDict) -> str:
    if name not in weights:
        return f"they lack '{name}'"
    found, expected = tuple(weights[name].shape), tuple(fresh[name].shape)
    return "" if found == expected else f"'{name}' is {found} there and {expected} in the model"
