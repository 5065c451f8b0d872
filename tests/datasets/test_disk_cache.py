import numpy as np
import pytest

from warmstart_sim.datasets.disk_cache import cached
from warmstart_sim.datasets.paths import cache_root

SHAPE = (3, 1, 2, 2)


def pixels() -> np.ndarray:
    return np.arange(12, dtype=np.uint8).reshape(SHAPE)


def never() -> np.ndarray:
    raise AssertionError("built although it was stored")


def test_the_second_call_reads_what_the_first_stored():
    cached("key", SHAPE, pixels)
    assert np.array_equal(cached("key", SHAPE, never), pixels())
    assert [path.name for path in cache_root().iterdir()] == ["key.npy"]


@pytest.mark.parametrize("kept", [0, 5, 40, 100, 130, -1])
def test_a_truncated_file_is_built_again(kept):
    cached("key", SHAPE, pixels)
    path = cache_root() / "key.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    assert np.array_equal(cached("key", SHAPE, pixels), pixels())
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "other", [pixels()[:2], pixels().astype(np.int16), pixels().reshape(3, 4)], ids=["rows", "type", "shape"]
)
def test_an_array_of_another_shape_or_type_is_built_again(other):
    np.save(cache_root() / "key.npy", other)
    assert np.array_equal(cached("key", SHAPE, pixels), pixels())
    assert np.array_equal(cached("key", SHAPE, never), pixels())


def test_an_unknown_length_and_another_type_are_possible():
    def tokens() -> np.ndarray:
        return np.arange(5, dtype=np.uint16)

    cached("key", (None,), tokens, np.uint16)
    assert np.array_equal(cached("key", (None,), never, np.uint16), tokens())
    for shape, dtype in (((None, None), np.uint16), ((None,), np.uint8), ((4,), np.uint16)):
        with pytest.raises(AssertionError, match="built although"):
            cached("key", shape, never, dtype)


def test_garbage_is_built_again():
    (cache_root() / "key.npy").write_bytes(b"\x93NUMPY\x01\x00\x76\x00{'descr': [" + b"\x00" * 200)
    assert np.array_equal(cached("key", SHAPE, pixels), pixels())


def test_writing_to_the_array_does_not_reach_the_file():
    cached("key", SHAPE, pixels)
    cached("key", SHAPE, never)[:] = 0
    assert np.array_equal(cached("key", SHAPE, never), pixels())


def test_a_failed_write_leaves_no_file_and_returns_the_array(monkeypatch):
    def full(file, array):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert np.array_equal(cached("key", SHAPE, pixels), pixels())
    assert list(cache_root().iterdir()) == []


def test_a_folder_that_cannot_be_made_costs_only_time(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WARMSTART_SIM_CACHE", str(tmp_path / "file" / "cache"))
    assert np.array_equal(cached("key", SHAPE, pixels), pixels())
