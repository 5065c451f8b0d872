"""Decoded images and tokens on disk, so that they are made once; worker processes share an image array's memory."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from warmstart_sim.datasets.paths import cache_root

Array = NDArray[Any]


def cached(key: str, shape: tuple[int | None, ...], build: Callable[[], Array], dtype: DTypeLike = np.uint8) -> Array:
    """The array stored under `key`, or what `build()` returns, which is stored then.

    Args:
        key: A hash of everything that the array depends on; it becomes the file's name.
        shape: The shape that the array must have, None for any length; a stored one that has not, or cannot be read, is
            built again.
        build: Makes the array.
        dtype: The type that it must have.
    """
    path = cache_root() / f"{key}.npy"
    stored = _read(path)
    if stored is not None and stored.dtype == dtype and _fits(stored.shape, shape):
        return stored
    array = build()
    with contextlib.suppress(OSError):  # a full or read-only disk costs time, not the run
        _write(path, array)
    return array


def _fits(found: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    return len(found) == len(shape) and all(size in (None, n) for n, size in zip(found, shape, strict=True))


def _read(path: Path) -> Array | None:
    try:
        # "c": the pages are shared with other processes and the file is never written to; unlike "r", torch can
        # wrap the array without a copy.
        return np.asarray(np.load(path, mmap_mode="c"))
    except Exception:  # absent, cut short, garbage: whatever it is, it is built again
        return None


def _write(path: Path, array: Array) -> None:
    """Writes beside `path` and moves into place, so that another process sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            np.save(file, array)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
