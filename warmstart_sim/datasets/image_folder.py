"""Your own images: a folder with one folder per class."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from warmstart_sim.datasets.class_folders import files_by_class, train_and_test_folders
from warmstart_sim.datasets.disk_cache import cached
from warmstart_sim.datasets.labels import describe_classes
from warmstart_sim.datasets.split import stratified_split
from warmstart_sim.errors import DataError
from warmstart_sim.registry import DATASETS
from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import Dataset, Samples

Pixels = NDArray[np.uint8]

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".gif", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
CACHE_FORMAT = 2  # increment when decoding changes


@DATASETS.register("image_folder", "same_for_every_seed")
def image_folder(
    root: Path,
    seed: int,
    *,
    path: Path,
    size: PositiveInt | tuple[PositiveInt, PositiveInt],
    channels: Literal[1, 3] = 3,
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    allow_empty: bool = False,
) -> Dataset:
    """Your own images: PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/* with a part held out for testing.

    Images are turned as their EXIF orientation says, scaled (bilinear) to cover `size` and cropped at the centre; of
    animations, the first frame is the image, and transparency is dropped. Decoded pixels are cached on disk under a
    hash of the files' names and contents, so a changed folder is decoded again. Classes are numbered by sorted name.

    Args:
        root: Not used.
        seed: Not used: the split is the same for every seed.
        path: The folder. `val` or `valid` can replace `test`. Class folders may contain subfolders.
        size: Height and width, or one number for both.
        channels: 3 for colour, 1 for grey.
        test_fraction: The share of each class held out for testing, in (0, 1). Ignored if there is a test folder.
        allow_empty: Whether a class folder without images counts as a class, whose samples may come later.

    Raises:
        DataError: The folder does not exist or has no images, there are fewer than two classes, the test folder has an
            unknown class, or an image cannot be read.
    """
    path = path.expanduser()
    train_folder, test_folder = train_and_test_folders("image_folder", path)
    found = files_by_class("image_folder", train_folder, "images", SUFFIXES, allow_empty)
    train_files = found.files
    if len(train_files) < 2:
        raise DataError(f"image_folder: {train_folder} has only one class ({next(iter(train_files))})")
    number = {name: index for index, name in enumerate(train_files)}
    train = [(file, number[name]) for name, files in train_files.items() for file in files]
    if test_folder is None:
        labels = np.array([label for _, label in train])
        kept, held_out = stratified_split(labels, test_fraction, numpy_generator(0, "held_out"))
        train, test = [train[i] for i in kept], [train[i] for i in held_out]
    else:
        test_files = files_by_class("image_folder", test_folder, "images", SUFFIXES).files
        if unknown := sorted(test_files.keys() - number.keys()):
            raise DataError(f"image_folder: class '{unknown[0]}' in {test_folder} is not in {train_folder}")
        test = [(file, number[name]) for name, files in test_files.items() for file in files]

    height, width = (size, size) if isinstance(size, int) else size
    pixels = _load_pixels(path, [file for file, _ in train + test], (channels, height, width))
    labels = np.array([label for _, label in train + test], dtype=np.int64)
    end = len(train)
    return Dataset(
        "image_folder",
        Samples(pixels[:end], labels[:end]),
        Samples(pixels[end:], labels[end:]),
        classes=len(number),
        notes=(*found.notes, f"image_folder: {describe_classes([*number])}"),
    )


def _load_pixels(path: Path, files: Sequence[Path], shape: tuple[int, int, int]) -> Pixels:
    """Decodes `files` to uint8 (n, *shape), or reads them from the cache."""
    digest = hashlib.blake2b(repr((CACHE_FORMAT, shape)).encode(), digest_size=20)
    for file in files:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "blake2b").hexdigest()
        digest.update(repr((file.relative_to(path).as_posix(), content)).encode())

    def decode() -> Pixels:
        return np.stack([_decode(file, shape) for file in files])

    return cached(f"image_folder-{digest.hexdigest()}", (len(files), *shape), decode)


def _decode(file: Path, shape: tuple[int, int, int]) -> Pixels:
    from PIL import Image, ImageOps

    channels, height, width = shape
    try:
        with Image.open(file) as image:
            if image.mode[0] in "IF":
                raise DataError(f"image_folder: {file} has more than 8 bits a channel; convert it to 8")
            upright: Image.Image = ImageOps.exif_transpose(image)
            if "transparency" in upright.info:
                upright = upright.convert("RGBA")  # Pillow warns if a palette loses its transparency otherwise
            converted = upright.convert("RGB" if channels == 3 else "L")
            fitted = ImageOps.fit(converted, (width, height), Image.Resampling.BILINEAR)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise many different errors for a damaged file
        raise DataError(f"image_folder: cannot read the image {file} ({error})") from error
    return np.asarray(fitted).reshape(height, width, channels).transpose(2, 0, 1)
