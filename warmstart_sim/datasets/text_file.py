"""Your own text for a model that predicts the next character or byte: windows of one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, PositiveInt

from warmstart_sim.datasets.tokenizing import read_text
from warmstart_sim.errors import DataError
from warmstart_sim.registry import DATASETS
from warmstart_sim.types import Dataset, IntArray, Samples

BYTES = 256


@DATASETS.register("text_file", "same_for_every_seed")
def text_file(
    root: Path,
    seed: int,
    *,
    path: Path,
    level: Literal["character", "byte"] = "character",
    length: PositiveInt = 64,
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1,
) -> Dataset:
    """Your own text for `decoder`: windows of a file, whose labels are the next character or byte at each position.

    The last part of the file is for testing. Both parts are cut into windows that do not overlap: each token but the
    first is predicted once, and a rest that fills no window is left out. A class is a token.

    Args:
        root: Not used.
        seed: Not used: the windows are the same for every seed.
        path: The file.
        level: Tokens are the "character"s that the file has, in the order of Unicode (default; it is UTF-8), or its
            "byte"s, of which there are 256.
        length: The tokens of a window, which is what a prediction can look back at. Default 64.
        test_fraction: The share of the file's end for testing, in (0, 1). Default 0.1.

    Raises:
        DataError: There is no such file, it is not UTF-8, or it has too little text.
    """
    path = path.expanduser()
    if not path.is_file():
        raise DataError(f"text_file: there is no file {path}")
    if level == "byte":
        tokens, size = np.frombuffer(path.read_bytes(), dtype=np.uint8).astype(np.int64), BYTES
    else:
        codes = np.frombuffer(read_text("text_file", path).encode("utf-32-le"), dtype=np.uint32)
        characters, tokens = np.unique(codes, return_inverse=True)
        size = len(characters)
    cut = len(tokens) - round(test_fraction * len(tokens))
    if min(cut, len(tokens) - cut) <= length:
        raise DataError(
            f"text_file: {path} has {len(tokens)} {level}s, {len(tokens) - cut} of them for testing; a window of "
            f"`length` {length} needs {length + 1} in each part"
        )
    train, test = (windows(part, length) for part in (tokens[:cut], tokens[cut:]))
    return Dataset("text_file", train, test, size, vocabulary_size=size)


def windows(tokens: IntArray, length: int) -> Samples:
    """Windows of a text that do not overlap, and the next token at each of their positions.

    >>> samples = windows(np.arange(8), 3)
    >>> samples.inputs.tolist(), samples.labels.tolist()
    ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])
    """
    end = (len(tokens) - 1) // length * length
    tokens = tokens.astype(np.int64)
    return Samples(tokens[:end].reshape(-1, length), tokens[1 : end + 1].reshape(-1, length))
