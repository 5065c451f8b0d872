"""Decodes image files to pixels of one size, once: they are cached on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from warmstart_sim.datasets.disk_cache import cached
from warmstart_sim.errors import DataError
from warmstart_sim.types import Dataset, Samples

Pixels = NDArray[np.uint8]
Labelled = Sequence[tuple[Path, int]]  # files, each with its class

CACHE_FORMAT = 2  # increment when decoding changes


def decoded(
    name: str, path: Path, train: Labelled, test: Labelled, shape: tuple[int, int, int], classes: int
) -> Dataset:
    """A data set of image files.

    Images are turned as their EXIF orientation says, scaled (bilinear) to cover the size and cropped at the centre; of
    animations, the first frame is the image, and transparency is dropped. Decoded pixels are cached on disk under a
    hash of the files' names and contents, so changed files are decoded again.

    Args:
        name: The data set's name.
        path: A folder above all files.
        train: The training images.
        test: The test images.
        shape: (1 for grey or 3 for colour, height, width).
        classes: The number of classes.

    Raises:
        DataError: An image cannot be read.
    """
    pixels = _load_pixels(name, path, [file for file, _ in (*train, *test)], shape)
    labels = np.array([label for _, label in (*train, *test)], dtype=np.int64)
    end = len(train)
    return Dataset(name, Samples(pixels[:end], labels[:end]), Samples(pixels[end:], labels[end:]), classes)


def _load_pixels(name: str, path: Path, files: Sequence[Path], shape: tuple[int, int, int]) -> Pixels:
    """Decodes `files` to uint8 (n, *shape), or reads them from the cache."""
    digest = hashlib.blake2b(repr((CACHE_FORMAT, shape)).encode(), digest_size=20)
    for file in files:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "blake2b").hexdigest()
        digest.update(repr((file.relative_to(path).as_posix(), content)).encode())

    def decode() -> Pixels:
        pixels = np.empty((len(files), *shape), np.uint8)
        for k, file in enumerate(files):
            pixels[k] = _decode(name, file, shape)
        return pixels

    return cached(f"{name}-{digest.hexdigest()}", (len(files), *shape), decode)


def _decode(name: str, file: Path, shape: tuple[int, int, int]) -> Pixels:
    from PIL import Image, ImageOps

    channels, height, width = shape
    try:
        with Image.open(file) as image:
            if image.mode[0] in "IF":
                raise DataError(f"{name}: {file} has more than 8 bits a channel; convert it to 8")
            upright: Image.Image = ImageOps.exif_transpose(image)
            if "transparency" in upright.info:
                upright = upright.convert("RGBA")  # Pillow warns if a palette loses its transparency otherwise
            converted = upright.convert("RGB" if channels == 3 else "L")
            fitted = ImageOps.fit(converted, (width, height), Image.Resampling.BILINEAR)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise many different errors for a damaged file
        raise DataError(f"{name}: cannot read the image {file} ({error})") from error
    return np.asarray(fitted).reshape(height, width, channels).transpose(2, 0, 1)
