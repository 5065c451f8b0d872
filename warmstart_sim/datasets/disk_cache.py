"""Caches decoded images and tokens on disk. Worker processes share the memory of a cached array."""

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
    """Returns the array stored under `key`, or stores and returns the result of `build()`.

    Args:
        key: The file's name: a hash of everything that the array depends on.
        shape: The expected shape, None for any length. A stored array of another shape, or one that cannot be read, is
            built again.
        build: Computes the array.
        dtype: The expected type.
    """
    path = cache_root() / f"{key}.npy"
    stored = _read(path)
    if stored is not None and stored.dtype == dtype and _fits(stored.shape, shape):
        return stored
    array = build()
    with contextlib.suppress(OSError):  # on a full or read-only disk the run goes on without the cache
        _write(path, array)
    return array


def _fits(found: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    return len(found) == len(shape) and all(size in (None, n) for n, size in zip(found, shape, strict=True))


def _read(path: Path) -> Array | None:
    try:
        # Copy-on-write: processes share the pages, and the file is never changed. Unlike mode "r", torch can wrap the
        # array without a copy.
        return np.asarray(np.load(path, mmap_mode="c"))
    except Exception:  # missing, truncated or damaged: it is built again
        return None


def _write(path: Path, array: Array) -> None:
    """Writes a temporary file and renames it, so that other processes never see a partial file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            np.save(file, array)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
