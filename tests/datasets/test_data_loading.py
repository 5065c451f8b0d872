from pathlib import Path

import numpy as np
import pytest
import torch

from warmstart_sim.datasets import load, loading
from warmstart_sim.errors import DataError, WarmstartError
from warmstart_sim.types import Dataset, Samples


def drawn(root: Path, seed: int, *, rows: int = 4) -> Dataset:
    inputs = np.full((rows, 2), seed, dtype=np.float32)
    samples = Samples(inputs, np.arange(rows, dtype=np.int64) % 2)
    return Dataset("drawn", samples, samples, 2)


def unreadable(root: Path, seed: int) -> Dataset:
    raise PermissionError(13, "Permission denied", "/data/file")


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(WarmstartError, match="unknown data set 'digit'; did you mean 'digits'"):
        load("digit", {}, Path(), 0)


def test_a_users_function_is_called_for_each_seed_and_option():
    name = f"{__name__}:drawn"
    first = load(name, {}, Path(), 1)
    assert load(name, {}, Path(), 1) is first
    assert load(name, {}, Path(), 2).train.inputs[0, 0] == 2
    assert len(load(name, {"rows": 6}, Path(), 1).train) == 6


def test_only_the_last_few_stay_in_memory():
    name = f"{__name__}:drawn"
    first = load(name, {}, Path(), 0)
    for seed in range(1, loading.MAX_KEPT + 1):
        load(name, {}, Path(), seed)
    assert len(loading._recent) == loading.MAX_KEPT
    assert load(name, {}, Path(), 0) is not first


def test_file_system_errors_become_data_errors_that_name_the_file():
    with pytest.raises(DataError, match="Permission denied: '/data/file'"):
        load(f"{__name__}:unreadable", {}, Path(), 0)


def test_loaded_data_are_checked():
    with pytest.raises(DataError, match="no training samples"):
        load(f"{__name__}:drawn", {"rows": 0}, Path(), 0)


def test_torch_wraps_loaded_arrays_without_a_warning_or_a_copy(images):
    """Torch warns about read-only arrays, so their memory must be writable, also in a cached set."""
    for _ in range(2):  # decoded, then from the disk
        loading._recent.clear()
        dataset = load("image_folder", {"path": images, "size": 8}, Path(), 0)
        view = dataset.train.inputs.view()
        view.setflags(write=True)
        assert torch.from_numpy(view).data_ptr() == dataset.train.inputs.ctypes.data
