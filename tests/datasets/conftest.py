"""Every data set test runs without network, with its own disk cache, and with no data sets loaded."""

import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from warmstart_sim.datasets import loading
from warmstart_sim.datasets.known_sizes import TEXT_SETS, TextSet


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path_factory):
    def offline(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setenv("WARMSTART_SIM_CACHE", str(tmp_path_factory.mktemp("decoded")))
    monkeypatch.setattr(loading, "_recent", {})


@pytest.fixture
def write_images():
    """Writes random PNG images, `per_class[name]` of them into `folder/name`."""

    def write(folder: Path, per_class: dict[str, int], size: tuple[int, int] = (12, 10)) -> Path:
        generator = np.random.default_rng(0)
        for name, count in per_class.items():
            (folder / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, size=(*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / name / f"{index}.png")
        return folder

    return write


@pytest.fixture
def images(write_images, tmp_path):
    return write_images(tmp_path / "images", {"cat": 5, "dog": 10})


@pytest.fixture
def write_texts():
    """Writes `texts[name]` into the files 0.txt, 1.txt ... of `folder/name`."""

    def write(folder: Path, texts: dict[str, list[str]]) -> Path:
        for name, each in texts.items():
            (folder / name).mkdir(parents=True)
            for index, text in enumerate(each):
                (folder / name / f"{index}.txt").write_text(text, "utf-8")
        return folder

    return write


@pytest.fixture
def reviews(monkeypatch, tmp_path, write_texts):
    """A root with an `aclImdb` of 3 + 2 reviews per class, which is accepted as the complete set."""
    monkeypatch.setitem(TEXT_SETS, "imdb", TextSet(classes=2, train_samples=6, test_samples=4))
    place = tmp_path / "sets" / "aclImdb"
    bad, good = ["A bad film.<br />Bad!", "bad film", "so bad"], ["A good film", "it's good", "It's a good film"]
    write_texts(place / "train", {"neg": bad, "pos": good, "unsup": ["unlabelled words", "unlabelled words"]})
    write_texts(place / "test", {"neg": bad[:2], "pos": good[:2]})
    (place / "README").write_text("")
    return tmp_path / "sets"


@pytest.fixture
def npz(tmp_path):
    """Writes arrays to a .npz file, by default 12 images of three classes."""

    def write(**changed) -> Path:
        held = {
            "x_train": np.arange(12 * 6 * 5, dtype=np.uint16).reshape(12, 6, 5).astype(np.uint8),
            "y_train": np.arange(12) % 3,
        }
        held = {key: value for key, value in (held | changed).items() if value is not None}
        path = tmp_path / "own.npz"
        np.savez(path, **held)
        return path

    return write
