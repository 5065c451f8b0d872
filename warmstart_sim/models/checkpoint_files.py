"""Reads the state dicts in a checkpoint file, of torch or safetensors, without executing code from it."""

from __future__ import annotations

import argparse
import hashlib
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart_sim.errors import DataError

if TYPE_CHECKING:
    import torch
    from torch import nn


NOT_PLAIN = """\
{file} is not a file of plain weights: it holds a Python object ({found}), and loading it would run code. If you trust \
it, save `model.state_dict()` with torch.save, where its classes can be imported:
  python -c "import torch; m = torch.load('{path}', map_location='cpu', weights_only=False); \
m = m.get('model', m.get('state_dict')) if isinstance(m, dict) else m; \
torch.save(m.state_dict() if isinstance(m, torch.nn.Module) else m, 'weights.pt')"\
"""
TORCHSCRIPT = """\
{file} is a TorchScript archive, not a file of plain weights; save its weights:
  python -c "import torch; torch.save(torch.jit.load('{path}', map_location='cpu').state_dict(), 'weights.pt')"\
"""


def find_checkpoint(path: Path, where: str = "stream.checkpoint") -> Path:
    """Returns the path of an existing checkpoint file, with `~` expanded.

    Args:
        path: The file.
        where: The setting that names it, for errors.

    Raises:
        DataError: The file does not exist.
    """
    if not path.expanduser().is_file():
        raise DataError(f"{where}: there is no file {path}")
    return path.expanduser()


def file_digest(path: Path) -> str:
    """Returns a digest of a checkpoint file.

    Raises:
        DataError: The file does not exist.
    """
    with find_checkpoint(path).open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def read_state_dicts(
    source: Path | Mapping[str, Any], where: str = "stream.checkpoint"
) -> dict[str, dict[str, torch.Tensor]]:
    """Reads all state dicts in a file, to the CPU, by the keys that lead to them ("" for one at the top).

    Args:
        source: The file, or the content of one.
        where: The setting that names it, for errors.

    Raises:
        DataError: The file does not exist, or does not contain a state dict.
    """
    sets = dict(_state_dicts(_load(source, where) if isinstance(source, Path) else source))
    if not sets:
        name = source if isinstance(source, Path) else f"the {type(source).__name__}"
        raise DataError(f"{where}: {name} holds no state dict (a mapping of names to tensors)")
    return sets


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Writes a model's weights to a file, in one rename: safetensors if its name ends so, else as `torch.save` does.

    The names are those of the model itself, without those of DataParallel and `torch.compile`. Safetensors hold tied
    parameters once; reading restores their other names.

    Args:
        model: The model. It does not change.
        path: The file.
    """
    import torch

    path = Path(path)
    state = {name: tensor.detach().contiguous() for name, tensor in unwrapped(model).state_dict(keep_vars=True).items()}
    partial = path.with_name(f".{path.name}.partial")
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        once = {tensor.data_ptr() or name: name for name, tensor in reversed(state.items())}.values()
        save_file({name: tensor for name, tensor in state.items() if name in once}, partial, {"format": "pt"})
    else:
        torch.save(state, partial)
    partial.replace(path)


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's module in what DataParallel, DistributedDataParallel and `torch.compile` make of it."""
    from torch import nn

    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(inner := model.__dict__.get("_modules", {}).get("_orig_mod"), nn.Module):
            model = inner
        else:
            return model


def _load(path: Path, setting: str) -> Any:
    file = find_checkpoint(path, setting)
    where = f"{setting}: {path}"
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        return _read_torch(file)
    except Exception as error:  # torch.load passes on whatever the unpickler or the zip reader raises
        refused = re.search(r"Unsupported (?:global|class).*?([\w.]+\.\w+) was not an allowed", str(error))
        if refused:
            message = NOT_PLAIN.format(file=where, path=path, found=refused[1])
        elif "TorchScript" in str(error):
            message = TORCHSCRIPT.format(file=where, path=path)
        else:
            message = (
                f"{where} is not a file of plain weights, or is truncated ({type(error).__name__}); "
                "save `model.state_dict()` with torch.save"
            )
        raise DataError(message) from error


def _read_torch(file: Path) -> Any:
    import torch

    # Training scripts store their options and the best accuracy beside the weights. None of these types runs code.
    number = np.float64(0)
    harmless: list[Any] = [argparse.Namespace, type(Path()), np.dtype, number.__reduce__()[0]]
    harmless += [type(np.dtype(each)) for each in ("float64", "float32", "int64")]
    with warnings.catch_warnings(), torch.serialization.safe_globals(harmless):
        warnings.simplefilter("ignore")  # torch warns of other pickles before it rejects them
        return torch.load(file, map_location="cpu", weights_only=True)


def _state_dicts(content: Any, label: str = "") -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """All mappings of names to tensors in a file, and the keys that lead to them."""
    import torch

    if not isinstance(content, Mapping) or not content:
        return
    if all(isinstance(name, str) and isinstance(each, torch.Tensor) for name, each in content.items()):
        yield label, dict(content)
        return
    for key, value in content.items():
        yield from _state_dicts(value, f"{label}.{key}" if label else str(key))
