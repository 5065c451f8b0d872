"""Decoded images on disk, so that a folder of JPEGs is decoded once and worker processes share its memory."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from warmstart_sim.data.location import cache_root

Pixels = NDArray[np.uint8]


def cached(key: str, shape: tuple[int, ...], build: Callable[[], Pixels]) -> Pixels:
    """The uint8 array stored under `key`, or what `build()` returns, which is stored then.

    Args:
        key: A hash of everything that the array depends on; it becomes the file's name.
        shape: The shape that the array must have; a stored one that has not, or cannot be read, is built again.
        build: Makes the array.
    """
    path = cache_root() / f"{key}.npy"
    stored = _read(path)
    if stored is not None and stored.shape == shape and stored.dtype == np.uint8:
        return stored
    array = build()
    with contextlib.suppress(OSError):  # a full or read-only disk costs time, not the run
        _write(path, array)
    return array


def _read(path: Path) -> Pixels | None:
    try:
        # "c": the pages are shared with other processes and the file is never written to; unlike "r", torch can
        # wrap the array without a copy.
        return np.asarray(np.load(path, mmap_mode="c"))
    except Exception:  # absent, cut short, garbage: whatever it is, it is built again
        return None


def _write(path: Path, array: Pixels) -> None:
    """Writes beside `path` and moves into place, so that another process sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            np.save(file, array)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
