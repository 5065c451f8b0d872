"""Cells and tasks as bytes, for workers; the data sets in them, which are large, travel by themselves and once."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

from warmstart_sim.types import Dataset


def pickled(value: Any, keep: Callable[[Dataset], Any], pickler: Callable[[io.BytesIO], Any] = pickle.Pickler) -> bytes:
    """Pickles cells or tasks; data sets are left out.

    Args:
        value: What to pickle.
        keep: Puts a data set where workers can get it, and names it.
        pickler: Makes what pickles.
    """
    content = io.BytesIO()
    pickling = pickler(content)
    pickling.persistent_id = lambda each: keep(each) if isinstance(each, Dataset) else None
    pickling.dump(value)
    return content.getvalue()


def unpickled(parcel: bytes, find: Callable[[Any], Dataset]) -> Any:
    """What `packed` was given.

    Args:
        parcel: What it made.
        find: Gives the data set of a name.
    """
    unpickling: Any = pickle.Unpickler(io.BytesIO(parcel))
    unpickling.persistent_load = find
    return unpickling.load()
