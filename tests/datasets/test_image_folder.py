import os
import shutil
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from warmstart_sim.datasets import image_files, load
from warmstart_sim.datasets.image_folder import image_folder
from warmstart_sim.datasets.paths import cache_root
from warmstart_sim.errors import DataError

read = partial(image_folder, Path("unused"), 0)


def one_color(folder: Path, colors: dict[str, tuple[int, int, int]], size=(9, 7)) -> None:
    for name, color in colors.items():
        (folder / name).mkdir(parents=True)
        Image.new("RGB", size, color).save(folder / name / "a.png")


def test_folders_of_classes_are_split_by_class(images):
    dataset = read(path=images, size=8)
    assert dataset.input_shape == (3, 8, 8)
    assert np.bincount(dataset.train.labels).tolist() == [4, 8]
    assert np.bincount(dataset.test.labels).tolist() == [1, 2]
    assert np.bincount(read(path=images, size=8, test_fraction=0.5).test.labels).tolist() == [2, 5]


@pytest.mark.parametrize("test_folder", ["test", "val", "valid"])
def test_train_and_test_folders_are_used_as_given(tmp_path, test_folder):
    one_color(tmp_path / "own" / "train", {"red": (255, 0, 0), "blue": (0, 0, 255)})
    one_color(tmp_path / "own" / test_folder, {"red": (250, 0, 0)})
    dataset = read(path=tmp_path / "own", size=4)
    assert dataset.train.labels.tolist() == [0, 1]  # blue before red
    assert dataset.train.inputs[:, :, 0, 0].tolist() == [[0, 0, 255], [255, 0, 0]]
    assert dataset.test.labels.tolist() == [1]
    assert dataset.test.inputs[0, :, 0, 0].tolist() == [250, 0, 0]


def test_a_test_folder_is_preferred_to_a_validation_folder(tmp_path, write_images):
    write_images(tmp_path / "train", {"a": 2, "b": 2})
    write_images(tmp_path / "val", {"a": 3})
    write_images(tmp_path / "test", {"a": 1})
    assert len(read(path=tmp_path, size=4).test) == 1


def test_a_train_folder_without_a_test_folder_is_split(tmp_path, write_images):
    write_images(tmp_path / "train", {"a": 5, "b": 5})
    assert len(read(path=tmp_path, size=4).test) == 2


def test_a_folder_called_train_can_be_a_class(tmp_path, write_images):
    write_images(tmp_path, {"car": 5, "train": 5})
    assert read(path=tmp_path, size=4).classes == 2


def test_images_in_subfolders_count_and_other_files_do_not(tmp_path, write_images):
    write_images(tmp_path / "a", {"inside": 4})
    write_images(tmp_path, {"b": 4})
    (tmp_path / "a" / "notes.txt").write_text("")
    (tmp_path / ".hidden").mkdir()
    dataset = read(path=tmp_path, size=4)
    assert (dataset.classes, len(dataset.train) + len(dataset.test)) == (2, 8)


def test_an_empty_class_folder_is_noted_and_is_a_class_if_the_user_says_so(tmp_path, write_images):
    folder = write_images(tmp_path, {"a": 3, "b": 0, "c": 3})
    dataset = read(path=folder, size=4)
    assert (dataset.classes, np.unique(dataset.train.labels).tolist()) == (2, [0, 1])
    assert dataset.notes == (
        f"image_folder: no images in b ({folder}): no class, unless `allow_empty: true` makes it one",
        "image_folder: classes: a -> 0, c -> 1",
    )
    allowed = load("image_folder", {"path": folder, "size": 4, "allow_empty": True}, Path(), 0)
    assert allowed.classes == 3
    assert np.unique(allowed.train.labels).tolist() == [0, 2]
    assert ImageFolder(folder, allow_empty=True).class_to_idx == {"a": 0, "b": 1, "c": 2}
    assert allowed.notes == ("image_folder: classes: a -> 0, b -> 1, c -> 2",)


def test_files_that_systems_leave_behind_are_ignored_and_links_followed(tmp_path, write_images):
    write_images(tmp_path / "elsewhere", {"more": 4})
    folder = write_images(tmp_path / "own", {"a": 4, "dé f": 4})
    before = len(read(path=folder, size=4).train)
    for name in (".DS_Store", "Thumbs.db", "._0.png", ".hidden.png", "desktop.ini"):
        (folder / "a" / name).write_bytes(b"\0\1")
    (folder / "a" / "folder.png").mkdir()
    (folder / "__MACOSX" / "a").mkdir(parents=True)
    (folder / "__MACOSX" / "a" / "._0.png").write_bytes(b"\0")
    (folder / "a" / "linked").symlink_to(tmp_path / "elsewhere" / "more")
    (folder / "a" / "loop").symlink_to(folder / "a")
    dataset = read(path=folder, size=4)
    assert dataset.classes == 2
    assert len(dataset.train) + len(dataset.test) == 12
    assert before == 6


def plain(file: Path) -> np.ndarray:
    """An image as (3, height, width), read without our code."""
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def png_of_16_bits(path: Path, samples: np.ndarray) -> None:
    """Writes RGB samples, uint16 (height, width, 3), which Pillow cannot."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


PIXELS = np.random.default_rng(0).integers(0, 256, size=(6, 8, 3), dtype=np.uint8)
CHANNELS_FIRST = PIXELS.transpose(2, 0, 1)


def write_16_bits(path: Path) -> np.ndarray:
    png_of_16_bits(path / "0.png", PIXELS.astype(np.uint16) * 256 + 7)
    return CHANNELS_FIRST


def write_animation(path: Path) -> np.ndarray:
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
    frames[0].save(path / "0.gif", save_all=True, append_images=frames[1:])
    return np.full((6, 8, 3), (255, 0, 0)).transpose(2, 0, 1)


def write_alpha(path: Path) -> np.ndarray:
    alpha = np.arange(48, dtype=np.uint8).reshape(6, 8, 1)
    Image.fromarray(np.concatenate([PIXELS, alpha], axis=2)).save(path / "0.png")
    return CHANNELS_FIRST


def write_transparent_palette(path: Path) -> np.ndarray:
    image = Image.fromarray(PIXELS).quantize(16)
    image.save(path / "0.png", transparency=bytes(range(0, 160, 10)))
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def write_cmyk(path: Path) -> np.ndarray:
    inks = np.random.default_rng(1).integers(0, 256, size=(6, 8, 4), dtype=np.uint8)
    Image.fromarray(inks, "CMYK").save(path / "0.tif")
    light = 255 - inks.astype(int)
    return np.rint(light[..., :3] * light[..., 3:] / 255).transpose(2, 0, 1)


@pytest.mark.parametrize(
    "write",
    [write_16_bits, write_animation, write_alpha, write_transparent_palette, write_cmyk],
    ids=lambda f: f.__name__,
)
def test_images_of_many_kinds_have_the_colours_that_one_sees(tmp_path, write):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        expected = write(tmp_path / name)
    found = read(path=tmp_path, size=(6, 8)).train.inputs
    assert np.abs(found.astype(int) - expected).max() <= 1


TURNED = {  # by EXIF orientation: what a viewer does with the stored pixels, (height, width, 3)
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNED)
def test_photographs_are_turned_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(PIXELS).save(tmp_path / name / "0.png", exif=exif)
    upright = TURNED[orientation](PIXELS)
    assert np.array_equal(read(path=tmp_path, size=upright.shape[:2]).train.inputs[0], upright.transpose(2, 0, 1))


def test_pixels_and_labels_are_those_of_torchvision(images):
    folder = ImageFolder(images)
    ours = read(path=images, size=(12, 10), test_fraction=0.2)
    found = {
        (pixels.tobytes(), label)
        for part in (ours.train, ours.test)
        for pixels, label in zip(part.inputs, part.labels, strict=True)
    }
    assert found == {(plain(Path(file)).tobytes(), label) for file, label in folder.samples}
    assert len(found) == len(folder)


def test_images_are_scaled_to_cover_the_size_and_cropped_at_the_centre(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        wide = np.zeros((20, 60, 3), dtype=np.uint8)
        wide[:, 20:40] = 200  # the middle square; a stretched image would keep the black sides
        Image.fromarray(wide).save(tmp_path / name / "0.png")
    inputs = read(path=tmp_path, size=10).train.inputs
    assert np.all(inputs[:, :, :, 1:-1] == 200)
    assert read(path=tmp_path, size=(10, 30)).input_shape == (3, 10, 30)
    assert np.all(read(path=tmp_path, size=(10, 30)).train.inputs[..., :8] == 0)


def test_images_of_the_right_size_keep_their_pixels(images):
    dataset = read(path=images, size=(12, 10))
    kept = {pixels.tobytes() for pixels in np.concatenate([dataset.train.inputs, dataset.test.inputs])}
    for file in images.rglob("*.png"):
        assert np.asarray(Image.open(file)).transpose(2, 0, 1).tobytes() in kept


def test_grey_and_palette_images_mix_with_colour_ones(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for mode in ("L", "P", "RGB", "RGBA", "1", "CMYK", "LA"):
            Image.new(mode, (5, 5)).save(tmp_path / name / f"{mode}.{'tif' if mode == 'CMYK' else 'png'}")
    assert read(path=tmp_path, size=4).input_shape == (3, 4, 4)
    assert read(path=tmp_path, size=4, channels=1).input_shape == (1, 4, 4)


def no_folder(path, write_images):
    return path / "absent"


def no_images(path, write_images):
    (path / "empty" / "a").mkdir(parents=True)
    return path / "empty"


def no_class_folders(path, write_images):
    (path / "flat").mkdir()
    Image.new("RGB", (4, 4)).save(path / "flat" / "a.png")
    return path / "flat"


def one_class(path, write_images):
    return write_images(path / "one", {"only": 3})


def an_unknown_test_class(path, write_images):
    write_images(path / "own" / "train", {"a": 2, "b": 2})
    write_images(path / "own" / "test", {"c": 1})
    return path / "own"


def no_test_images(path, write_images):
    write_images(path / "own" / "train", {"a": 2, "b": 2})
    (path / "own" / "test").mkdir()
    return path / "own"


def a_damaged_image(path, write_images):
    folder = write_images(path / "own", {"a": 3, "b": 3})
    (folder / "b" / "1.png").write_bytes((folder / "b" / "1.png").read_bytes()[:60])
    return folder


def no_image_at_all(path, write_images):
    folder = write_images(path / "own", {"a": 3, "b": 3})
    (folder / "b" / "text.jpg").write_text("text")
    return folder


def sixteen_bits(path, write_images):
    folder = write_images(path / "own", {"a": 3, "b": 3})
    Image.fromarray(np.zeros((4, 4), dtype=np.uint16)).save(folder / "a" / "deep.png")
    return folder


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_folder, "there is no folder .*absent"),
        (no_images, "no images in the folders of .*empty"),
        (no_class_folders, "no images in the folders of .*flat"),
        (one_class, r"only one class \(only\)"),
        (an_unknown_test_class, "class 'c' in .*test is not in .*train"),
        (no_test_images, "no images in the folders of .*test"),
        (a_damaged_image, "cannot read the image .*b.1.png"),
        (no_image_at_all, "cannot read the image .*text.jpg"),
        (sixteen_bits, "deep.png has more than 8 bits"),
    ],
)
def test_invalid_folders_are_reported_in_one_line(tmp_path, write_images, make, message):
    with pytest.raises(DataError, match=message) as caught:
        read(path=make(tmp_path, write_images), size=4)
    assert "\n" not in str(caught.value)


def same(one, other) -> bool:
    return np.array_equal(one.train.inputs, other.train.inputs) and np.array_equal(one.test.inputs, other.test.inputs)


def test_the_second_load_decodes_nothing_and_is_equal(images, monkeypatch):
    first = read(path=images, size=8)
    monkeypatch.setattr(image_files, "_decode", None)
    assert same(read(path=images, size=8), first)
    assert len(list(cache_root().iterdir())) == 1


def test_a_copy_of_the_folder_elsewhere_is_the_same_data(images, monkeypatch, tmp_path):
    first = read(path=images, size=8)
    shutil.copytree(images, tmp_path / "copy")
    monkeypatch.setattr(image_files, "_decode", None)
    assert same(read(path=tmp_path / "copy", size=8), first)


def test_a_changed_image_is_decoded_again_although_name_size_and_time_are_equal(images):
    file = images / "cat" / "0.bmp"
    Image.new("RGB", (8, 8), (1, 2, 3)).save(file)
    before, status = read(path=images, size=8), file.stat()
    Image.new("RGB", (8, 8), (3, 2, 1)).save(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == status.st_size
    after = read(path=images, size=8)
    assert not same(before, after)
    assert len(list(cache_root().iterdir())) == 2


def test_a_truncated_cache_is_decoded_again(images):
    first = read(path=images, size=8)
    stored = next(cache_root().iterdir())
    stored.write_bytes(stored.read_bytes()[:-10])
    assert same(read(path=images, size=8), first)
