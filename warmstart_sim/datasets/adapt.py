"""Resizes images, and converts them to the shape of another data set, so that one model can train on both."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from warmstart_sim.datasets.disk_cache import cached
from warmstart_sim.errors import WarmstartError
from warmstart_sim.types import Dataset, Samples

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, which Pillow's "L" uses as well
BLOCK = 2**24  # values made at a time by resizing, which bounds the memory


def resized(dataset: Dataset, size: int | None) -> Dataset:
    """Returns the data set with pixels of `size` x `size`, resized as by `adapt_images`, or as it is for None.

    The pixels are cached on disk under a hash of the images.
    """
    if size is None:
        return dataset
    key = f"{dataset.name}-{size}-{dataset.digest()}"
    shape = (dataset.input_shape[0], size, size)

    def part(name: str, samples: Samples) -> Samples:
        found = cached(f"{key}-{name}", (len(samples), *shape), lambda: _resize(samples.inputs, size, size))
        return Samples(found, samples.labels)

    return replace(dataset, train=part("train", dataset.train), test=part("test", dataset.test))


def adapt_images(dataset: Dataset, shape: tuple[int, ...], how: Literal["resize", "pad"] | None) -> Dataset:
    """Returns the data set with inputs of `shape`.

    Channels: 1 becomes 3 by repetition; 3 become 1 by luminance, 0.299 R + 0.587 G + 0.114 B. Height and width:
    "resize" is bilinear, with antialiasing where images shrink; "pad" centres the image and adds zeros (black pixels),
    or crops around the centre, separately for each side.

    Args:
        dataset: Images, uint8 or float32 (n, channels, height, width). Other inputs must already have `shape`.
        shape: (channels, height, width).
        how: How to change height and width; None raises an error if the shapes differ.

    Raises:
        WarmstartError: The shapes differ and `how` is None, or the inputs cannot be converted.

    >>> images = Samples(np.full((2, 1, 2, 2), 7, dtype=np.uint8), np.array([0, 1]))
    >>> adapt_images(Dataset("grey", images, images, classes=2), (3, 4, 4), "pad").train.inputs[0, 2].tolist()
    [[0, 0, 0, 0], [0, 7, 7, 0], [0, 7, 7, 0], [0, 0, 0, 0]]
    """
    check_adaptable(dataset.name, dataset.input_shape, shape, how)
    if dataset.input_shape == shape:
        return dataset
    fit = _resize if how == "resize" else _pad
    train, test = (
        Samples(fit(_convert_channels(samples.inputs, shape[0]), shape[1], shape[2]), samples.labels)
        for samples in (dataset.train, dataset.test)
    )
    return replace(dataset, train=train, test=test)


def check_adaptable(
    name: str, before: tuple[int, ...], shape: tuple[int, ...], how: Literal["resize", "pad"] | None
) -> None:
    """Checks that `adapt_images` can convert a data set, without loading it.

    Args:
        name: The data set's name, for error messages.
        before: The shape of one of its inputs.
        shape: The required shape.
        how: As for `adapt_images`.

    Raises:
        WarmstartError: The shapes differ and `how` is None, or the inputs cannot be converted.
    """
    if before == shape:
        return
    difference = f"{name} has inputs of shape {before}, the target of shape {shape}"
    if len(before) != 3 or len(shape) != 3:
        raise WarmstartError(f"stream.source: {difference}; only images can be adapted")
    if how is None:
        raise WarmstartError(f"stream.source.adapt: {difference}; say how to adapt them: resize or pad")
    if {before[0], shape[0]} - {1, 3} and before[0] != shape[0]:
        raise WarmstartError(f"stream.source: {difference}; channels can only be converted between 1 and 3")


def _convert_channels(images: NDArray[np.generic], channels: int) -> NDArray[np.generic]:
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=1)
    grey = np.tensordot(images.astype(np.float32), np.asarray(LUMINANCE, dtype=np.float32), axes=(1, 0))[:, None]
    return _cast(images.dtype, grey)


def _resize(images: NDArray[np.generic], height: int, width: int) -> NDArray[np.generic]:
    import torch
    from torchvision.transforms.v2.functional import resize

    found = np.empty((*images.shape[:2], height, width), images.dtype)
    block = max(1, BLOCK // math.prod(found.shape[1:]))
    for start in range(0, len(images), block):
        # Resize floats: torch's uint8 kernel gives different results on different CPUs and fails for 1-pixel outputs.
        floats = torch.from_numpy(images[start : start + block].astype(np.float32))
        found[start : start + block] = _cast(images.dtype, resize(floats, [height, width], antialias=True).numpy())
    return found


def _cast(dtype: np.dtype[Any], floats: NDArray[np.float32]) -> NDArray[np.generic]:
    return (np.rint(floats) if dtype == np.uint8 else floats).astype(dtype)


def _pad(images: NDArray[np.generic], height: int, width: int) -> NDArray[np.generic]:
    for axis, size in ((2, height), (3, width)):
        spare = size - images.shape[axis]
        if spare >= 0:
            edges = [(0, 0)] * 4
            edges[axis] = (spare // 2, spare - spare // 2)
            images = np.pad(images, edges)
        else:
            start = -spare // 2
            images = images.take(range(start, start + size), axis=axis)
    return np.ascontiguousarray(images)
