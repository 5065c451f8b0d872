"""Loaders of the public sets, on small sets in the real formats; nothing here uses the network."""

import hashlib
import os
import pickle
import shutil
import socket
import struct
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets
from torchvision.transforms import v2
from url_responses import BrokenResponse, Response, each_download_error

from warmstart_sim.datasets import adapt, load, validate
from warmstart_sim.datasets.known_sizes import IMAGE_SETS, ImageSet
from warmstart_sim.datasets.paths import data_root
from warmstart_sim.datasets.torchvision_sets import cifar10, cifar100, fashion_mnist, mnist, svhn
from warmstart_sim.errors import DataError


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def small_cifar(monkeypatch, tmp_path):
    """A CIFAR-10 with two training batches and a test batch of 10 images each, whose checksums torchvision accepts."""
    root, generator = tmp_path / "sets", np.random.default_rng(0)
    folder = root / datasets.CIFAR10.base_folder
    folder.mkdir(parents=True)
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        data = generator.integers(0, 256, size=(10, 3072), dtype=np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": generator.permutation(10).tolist()}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("0123456789")}))
    listed = {name: [name, md5(folder / name)] for name in os.listdir(folder)}
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [listed["data_batch_1"], listed["data_batch_2"]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [listed["test_batch"]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", datasets.CIFAR10.meta | {"md5": listed["batches.meta"][1]})
    return root


@pytest.fixture
def small_mnist(monkeypatch, tmp_path):
    """An MNIST of 20 training and 10 test images."""
    monkeypatch.setitem(IMAGE_SETS, "mnist", ImageSet((1, 28, 28), 10, 20, 10))
    raw, generator = tmp_path / "sets" / "MNIST" / "raw", np.random.default_rng(0)
    raw.mkdir(parents=True)
    for prefix, count in (("train", 20), ("t10k", 10)):
        images = generator.integers(0, 256, size=count * 784, dtype=np.uint8).tobytes()
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + images)
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 2049, count) + bytes(range(10)) * (count // 10)
        )
    return tmp_path / "sets"


def everything_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_cifar_pixels_are_those_of_the_batches_channels_first(small_cifar):
    dataset = validate(cifar10(small_cifar, 0))
    folder = small_cifar / "cifar-10-batches-py"
    batches = [pickle.loads((folder / name).read_bytes()) for name in ("data_batch_1", "data_batch_2", "test_batch")]
    train = np.concatenate([batch["data"] for batch in batches[:2]])
    assert np.array_equal(dataset.train.inputs.reshape(20, -1), train)  # rows of red, green, blue, as in the file
    assert np.array_equal(dataset.test.inputs.reshape(10, -1), batches[2]["data"])
    assert dataset.train.labels.tolist() == batches[0]["labels"] + batches[1]["labels"]
    assert dataset.test.labels.tolist() == batches[2]["labels"]


def test_mnist_images_get_a_channel(small_mnist):
    dataset = validate(mnist(small_mnist, 0))
    raw = (small_mnist / "MNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()
    assert dataset.test.inputs.shape == (10, 1, 28, 28)
    assert dataset.test.inputs.tobytes() == raw[16:]
    assert dataset.test.labels.tolist() == list(range(10))


@pytest.mark.parametrize("size", [12, 64])
def test_images_are_resized_as_by_torchvision_and_only_once(size, small_cifar, small_mnist, monkeypatch):
    sets = [(cifar10, datasets.CIFAR10, small_cifar), (mnist, datasets.MNIST, small_mnist)]
    for load_set, theirs, root in sets:
        found, plain = validate(load_set(root, 0, size=size)), load_set(root, 0)
        images = [image for image, _ in theirs(root, train=False, transform=v2.Resize((size, size)))]
        expected = np.stack([np.asarray(image).reshape(size, size, -1).transpose(2, 0, 1) for image in images])
        assert found.test.inputs.shape == expected.shape
        assert np.abs(found.test.inputs.astype(int) - expected).max() <= 1  # Pillow's own rounding
        assert np.array_equal(found.train.labels, plain.train.labels)
        assert found.classes == plain.classes
        with monkeypatch.context() as patched:
            patched.setattr(adapt, "_resize", lambda *arguments: pytest.fail("resized again"))
            assert load_set(root, 0, size=size).digest() == found.digest()


def test_svhn_counts_the_digit_zero_as_class_zero(monkeypatch, tmp_path):
    from scipy.io import savemat

    pixels = np.random.default_rng(0).integers(0, 256, size=(32, 32, 3, 10), dtype=np.uint8)
    listed = {}
    for part in ("train", "test"):
        path = tmp_path / f"{part}_32x32.mat"
        savemat(path, {"X": pixels, "y": np.arange(1, 11, dtype=np.uint8)[:, None]})
        listed[part] = ["http://unused", path.name, md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", listed)
    dataset = validate(svhn(tmp_path, 0))
    assert dataset.train.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert np.array_equal(dataset.train.inputs[3], pixels[..., 3].transpose(2, 0, 1))
    assert dataset.train.inputs.flags.c_contiguous


@pytest.mark.parametrize(
    ("function", "missing"),
    [
        (cifar10, "cifar-10-batches-py/data_batch_1 and 6 more"),
        (cifar100, "cifar-100-python/train and 2 more"),
        (svhn, "train_32x32.mat and 1 more"),
        (mnist, "MNIST/raw/train-images-idx3-ubyte and 3 more"),
        (fashion_mnist, "FashionMNIST/raw/train-images-idx3-ubyte and 3 more"),
    ],
)
def test_without_files_or_network_one_line_says_what_is_missing_and_how_to_get_it(function, missing, tmp_path):
    with pytest.raises(DataError) as caught:
        function(tmp_path, 0)
    line = str(caught.value)
    assert line.startswith(f"{function.__name__}: {missing} not found in {tmp_path}")
    for hint in ("no network in tests", f"`warmstart-sim data {function.__name__}`", "--data-root", "--rehearse"):
        assert hint in line
    assert "\n" not in line
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-1], lambda content: content[:-1] + b"!", lambda content: b""]
)
def test_a_damaged_cifar_file_is_named(small_cifar, damage):
    file = small_cifar / "cifar-10-batches-py" / "data_batch_2"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(
        DataError, match=r"cifar10: damaged or truncated in .*: cifar-10-batches-py/data_batch_2; delete"
    ):
        cifar10(small_cifar, 0)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-5],
        lambda content: content + b"\0",
        lambda content: b"\1" + content[1:],
        lambda content: content[:7] + b"\5" + content[8 : 16 + 5 * 784],  # in itself a proper file of five
        lambda content: b"",
    ],
    ids=["short", "long", "magic", "fewer", "empty"],
)
def test_a_damaged_mnist_file_is_named(small_mnist, name, damage):
    file = small_mnist / "MNIST" / "raw" / name
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=f"mnist: damaged or truncated in .*: MNIST/raw/{name}; delete"):
        mnist(small_mnist, 0)


@pytest.fixture
def served(small_cifar, monkeypatch, tmp_path):
    """Serves a small CIFAR-10's archive at every address; returns an empty root to download to."""
    archive = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(small_cifar / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(archive))
    content = archive.read_bytes()
    monkeypatch.setattr(urllib.request, "urlopen", lambda request: Response(request.full_url, content))
    return tmp_path / "fetched"


def test_a_missing_set_is_downloaded_and_only_the_set_stays(served, small_cifar, capfd):
    assert np.array_equal(cifar10(served, 0).train.inputs, cifar10(small_cifar, 0).train.inputs)
    names = [path.relative_to(served) for path in everything_below(served)]
    assert names == [path.relative_to(small_cifar) for path in everything_below(small_cifar)]
    assert [path.name for path in served.iterdir()] == ["cifar-10-batches-py"]
    assert capfd.readouterr() == ("", "")  # no progress bar without a terminal


def test_a_download_fills_gaps_and_replaces_nothing(served, small_cifar):
    shutil.copytree(small_cifar, served)
    kept, absent = (served / "cifar-10-batches-py" / name for name in ("data_batch_1", "test_batch"))
    status = kept.stat()
    absent.unlink()
    cifar10(served, 0)
    assert absent.is_file()
    assert kept.stat().st_ino == status.st_ino


@each_download_error
@pytest.mark.parametrize("function", [cifar10, mnist])
def test_an_interrupted_download_leaves_nothing_behind(function, error, tmp_path, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda request: BrokenResponse(request.full_url, error))
    with pytest.raises((DataError, KeyboardInterrupt)) as caught:
        function(tmp_path, 0)
    assert isinstance(caught.value, KeyboardInterrupt) == isinstance(error, KeyboardInterrupt)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("known_sum", [False, True], ids=["another sum", "no archive"])
def test_a_damaged_download_leaves_nothing_behind(known_sum, served, monkeypatch):
    content = b"no archive"
    monkeypatch.setattr(urllib.request, "urlopen", lambda request: Response(request.full_url, content))
    if known_sum:
        monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(content).hexdigest())
    with pytest.raises(DataError, match="the download failed"):
        cifar10(served, 0)
    assert list(served.iterdir()) == []


def test_sockets_time_out_during_a_download_and_not_after_it(tmp_path, monkeypatch):
    seen = []

    def urlopen(request):
        seen.append(socket.getdefaulttimeout())
        raise urllib.error.URLError("timed out")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    before = socket.getdefaulttimeout()
    with pytest.raises(DataError, match="timed out"):
        cifar10(tmp_path, 0)
    assert 0 < seen[0] <= 60
    assert socket.getdefaulttimeout() == before


def test_a_root_that_cannot_be_created_is_a_data_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="the download failed"):
        load("cifar10", {}, tmp_path / "file" / "sets", 0)


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("WARMSTART_SIM_DATA"), reason="needs real data: set WARMSTART_SIM_DATA")
@pytest.mark.parametrize(
    "file", ["cifar-10-batches-py/test_batch", "cifar-100-python/test", "MNIST/raw/train-images-idx3-ubyte"]
)
def test_a_real_truncated_file_is_named(file, tmp_path):
    folder = file.split("/", maxsplit=1)[0]
    if not (data_root() / file).is_file():
        pytest.skip(f"{data_root()} has no {file}")
    for source in everything_below(data_root() / folder):
        copy = tmp_path / source.relative_to(data_root())
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(source)
    (tmp_path / file).unlink()
    (tmp_path / file).write_bytes((data_root() / file).read_bytes()[:-1000])
    name = {"cifar-10-batches-py": "cifar10", "cifar-100-python": "cifar100", "MNIST": "mnist"}[folder]
    with pytest.raises(DataError, match=f"{name}: damaged or truncated in .*: {file}; delete"):
        load(name, {}, tmp_path, 0)
