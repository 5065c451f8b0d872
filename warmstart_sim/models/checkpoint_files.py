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


def read_state_dicts(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Reads all state dicts in a file, to the CPU, by the keys that lead to them ("" for one at the top).

    Raises:
        DataError: The file does not exist, or does not contain a state dict.
    """
    sets = dict(_state_dicts(_load(path)))
    if not sets:
        raise DataError(f"stream.checkpoint: {path} holds no state dict (a mapping of names to tensors)")
    return sets


def _load(path: Path) -> Any:
    file = find_checkpoint(path)
    where = f"stream.checkpoint: {path}"
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
