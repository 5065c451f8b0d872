"""Tiny ImageNet and ImageNet, on small sets in the real formats; nothing here uses the network."""

import numpy as np
import pytest
from PIL import Image

from warmstart_sim.datasets import imagenet_sets, validate
from warmstart_sim.datasets.imagenet_sets import imagenet, tiny_imagenet
from warmstart_sim.datasets.known_sizes import IMAGE_SETS, PHOTO_SETS, ImageSet, PhotoSet
from warmstart_sim.errors import DataError


def paint(path, grey, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (64, 64), (grey, grey, grey) if mode == "RGB" else grey).save(path, quality=100)


def greys(samples):
    return np.round(samples.inputs.mean((1, 2, 3))).astype(int).tolist()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Two classes with two training images each, one of them grey, and three validation images."""
    monkeypatch.setitem(IMAGE_SETS, "tiny_imagenet", ImageSet((3, 64, 64), 2, 4, 3))
    monkeypatch.setenv("WARMSTART_SIM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tiny-imagenet-200"
    for k, name in enumerate(("n02", "n01")):
        for j in range(2):
            paint(folder / "train" / name / "images" / f"{name}_{j}.JPEG", 100 * k + 10 * j, "L" if j else "RGB")
        (folder / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t62\t63\n")
    for j in range(3):
        paint(folder / "val" / "images" / f"val_{j}.JPEG", 200 + 10 * j)
    lines = [f"val_{j}.JPEG\t{name}\t0\t32\t44\t62\n" for j, name in ((1, "n01"), (0, "n02"), (2, "n01"))]
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    paint(folder / "test" / "images" / "test_0.JPEG", 0)
    return folder


def test_tiny_imagenet_has_its_training_images_and_its_validation_images_for_testing(tiny, tmp_path):
    dataset = validate(tiny_imagenet(tmp_path, 0))
    assert (dataset.name, dataset.input_shape, dataset.classes) == ("tiny_imagenet", (3, 64, 64), 2)
    assert (greys(dataset.train), dataset.train.labels.tolist()) == ([100, 110, 0, 10], [0, 0, 1, 1])
    assert (greys(dataset.test), dataset.test.labels.tolist()) == ([210, 200, 220], [0, 1, 0])


def test_tiny_imagenet_is_decoded_once(tiny, tmp_path, monkeypatch):
    first = tiny_imagenet(tmp_path, 0)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    monkeypatch.setattr("warmstart_sim.datasets.image_files._decode", None)
    assert np.array_equal(tiny_imagenet(tmp_path, 1).train.inputs, first.train.inputs)


def test_an_incomplete_tiny_imagenet_is_one_line(tiny, tmp_path):
    (tiny / "train" / "n01" / "images" / "n01_0.JPEG").unlink()
    with pytest.raises(
        DataError, match=r"2 classes, 3 training and 3 validation images, but the set has 2, 4 and 3; un"
    ):
        tiny_imagenet(tmp_path, 0)
    (tiny / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn09\t0\t0\t1\t1\n")
    with pytest.raises(DataError, match=r"has the line \['val_0.JPEG', 'n09'\], but n09 is no folder in train$"):
        tiny_imagenet(tmp_path, 0)
    (tiny / "val" / "val_annotations.txt").unlink()
    with pytest.raises(DataError, match=r"^tiny_imagenet: tiny-imagenet-200/val/val_annotations.txt not found in"):
        tiny_imagenet(tmp_path, 0)


def test_imagenet_is_an_image_folder_whose_validation_images_are_for_testing(tmp_path, monkeypatch, write_images):
    monkeypatch.setitem(PHOTO_SETS, "imagenet", PhotoSet(2, 4, 2))
    write_images(tmp_path / "imagenet" / "train", {"n01": 2, "n02": 2})
    write_images(tmp_path / "imagenet" / "val", {"n01": 1, "n02": 1})
    dataset = validate(imagenet(tmp_path, 0, size=6))
    assert (dataset.name, dataset.input_shape, dataset.classes) == ("imagenet", (3, 6, 6), 2)
    assert (dataset.train.labels.tolist(), dataset.test.labels.tolist()) == ([0, 0, 1, 1], [0, 1])
    monkeypatch.setitem(PHOTO_SETS, "imagenet", PhotoSet(1000, 4, 2))
    with pytest.raises(
        DataError, match=r"has 2 classes, 4 training and 2 validation images, but the set has 1,000, 4 a"
    ):
        imagenet(tmp_path, 0, size=6)


@pytest.mark.parametrize(
    ("function", "where", "need"),
    [
        (tiny_imagenet, imagenet_sets.TINY_URL, "unzip -q tiny-imagenet-200.zip -d "),
        (imagenet, imagenet_sets.IMAGENET_URL, "needs 200 GB of memory"),
    ],
)
def test_without_files_one_line_says_what_is_missing_and_how_to_get_it(function, where, need, tmp_path):
    with pytest.raises(DataError) as caught:
        function(tmp_path, 0)
    line = str(caught.value)
    assert line.startswith(f"{function.__name__}: ")
    assert all(part in line for part in (where, need, "train not found in", "--rehearse"))
    assert "\n" not in line
