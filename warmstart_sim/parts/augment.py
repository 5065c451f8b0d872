"""Augmentation of images: random crop, horizontal flip, colour jitter and rotation.

It transforms batches of unnormalised pixels on their device, each sample differently. `draw` draws the random numbers;
the other functions are deterministic functions of images and these numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field
from pydantic.dataclasses import dataclass

from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import PARTS
from warmstart_sim.types import Batch, Hooks, RoundContext

if TYPE_CHECKING:
    import torch

    from warmstart_sim.types import StateDict


def _usual(strength: float) -> BeforeValidator:
    """Makes `true` in a scenario file mean the usual strength of an augmentation, and `false` none."""
    return BeforeValidator(
        lambda value: value * strength if isinstance(value, bool) else value,
        json_schema_input_type=bool | type(strength),
    )


@PARTS.register("augment", "ignores_previous", changes="inputs")
@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random crop, horizontal flip, colour jitter and rotation of images, drawn for every sample in every epoch.

    The order is crops, flip, rotation, and then brightness, contrast, saturation. Pixels from outside an image are
    black. In a scenario file a list of names, or `true`, means the strengths of Kireev et al. 2021 (section 2.4), whose
    "small" rotations are read as 2 degrees: `augment: [random_crop, horizontal_flip, color_jitter, rotation]`.

    Attributes:
        random_crop: Padding in pixels; the crop keeps the image's size. Usual: 4.
        horizontal_flip: Probability of a flip. Usual: 0.5.
        color_jitter: Brightness, contrast and saturation factors are uniform in 1 +- this. Usual: 0.25.
        rotation: The angle in degrees is uniform in +- this. Usual: 2.
        enlarged_crop: The share by which height and width grow before a crop of the image's own size. Usual: 24 / 224,
            from 224 to 248 pixels (Alabdulmohsin et al. 2021, section 3, with a horizontal flip).
    """

    random_crop: Annotated[int, _usual(4), Field(ge=0)] = 0
    horizontal_flip: Annotated[float, _usual(0.5), Field(ge=0, le=1)] = 0.0
    color_jitter: Annotated[float, _usual(0.25), Field(ge=0, le=1)] = 0.0
    rotation: Annotated[float, _usual(2.0), Field(ge=0, le=180)] = 0.0
    enlarged_crop: Annotated[float, Field(ge=0), _usual(24 / 224)] | None = None

    def __call__(self, previous: StateDict, fresh: StateDict, context: RoundContext, /) -> Hooks:
        """The hooks of a round: a transform made of the augmentations that are on."""
        steps: list[Callable[[torch.Tensor, Drawn], torch.Tensor]] = []
        if self.enlarged_crop:
            steps.append(EnlargeAndCrop(self.enlarged_crop))
        if self.rotation:
            steps.append(crop_flip_and_rotate)
        elif self.random_crop or self.horizontal_flip:
            steps.append(crop_and_flip)
        if self.color_jitter:
            steps.append(jitter_colours)
        return Hooks(transform=Transform(self, tuple(steps)) if steps else None)


@dataclasses.dataclass(frozen=True)
class Transform:
    """Augments batches. Two transforms of equal strengths are equal, so that a captured step stays valid across rounds.

    Attributes:
        strengths: The ranges to draw from.
        steps: The functions to apply, in this order.
    """

    strengths: Augment
    steps: tuple[Callable[[torch.Tensor, Drawn], torch.Tensor], ...]

    def __call__(self, batch: Batch) -> Batch:
        """The batch with augmented images.

        Raises:
            WarmstartError: The inputs are not images, or `color_jitter` meets images without 1 or 3 channels.
        """
        images = batch.inputs
        _require_images(images, coloured=self.strengths.color_jitter > 0)
        drawn = draw(len(images), self.strengths, batch.generator)
        for step in self.steps:
            images = step(images, drawn)
        return dataclasses.replace(batch, inputs=images)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """The random numbers for a batch of n images, all on its device.

    Attributes:
        shift: Rows and columns by which the crop moves, int64 (n, 2).
        flip: Which images are mirrored, bool (n,).
        angle: Counter-clockwise rotations in degrees, (n,).
        brightness: Factors, (n,).
        contrast: Factors, (n,).
        saturation: Factors, (n,).
        offset: Where an enlarged crop lies, down and across, from 0 at the top left to 1, (n, 2).
    """

    shift: torch.Tensor
    flip: torch.Tensor
    angle: torch.Tensor
    brightness: torch.Tensor
    contrast: torch.Tensor
    saturation: torch.Tensor
    offset: torch.Tensor


def draw(n: int, strengths: Augment, generator: torch.Generator) -> Drawn:
    """Draws for n images.

    Each image takes seven uniform numbers, whichever augmentations are on: arms that differ in one augmentation share
    the draws of the others. Only an enlarged crop takes two more.
    """
    import torch

    uniform = torch.rand(7, n, generator=generator, device=generator.device)
    offset = torch.zeros(n, 2, device=generator.device)
    if strengths.enlarged_crop:
        offset = torch.rand(n, 2, generator=generator, device=generator.device)
    brightness, contrast, saturation = 1 + strengths.color_jitter * (2 * uniform[4:] - 1)
    return Drawn(
        shift=((2 * strengths.random_crop + 1) * uniform[:2].T).long() - strengths.random_crop,
        flip=uniform[2] < strengths.horizontal_flip,
        angle=strengths.rotation * (2 * uniform[3] - 1),
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        offset=offset,
    )


@dataclasses.dataclass(frozen=True)
class EnlargeAndCrop:
    """Enlarges images bilinearly, and crops them to their size.

    Attributes:
        share: Of themselves by which height and width grow, rounded to pixels.
    """

    share: float

    def __call__(self, images: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """Images of the same shape (n, channels, height, width); uses the offset."""
        import torch
        from torch.nn import functional as F

        height, width = images.shape[2:]
        more = round(self.share * height), round(self.share * width)
        size = (height + more[0], width + more[1])
        enlarged = F.interpolate(images, size, mode="bilinear", align_corners=False)
        row = torch.arange(height, device=images.device) + ((more[0] + 1) * drawn.offset[:, :1]).long()
        column = torch.arange(width, device=images.device) + ((more[1] + 1) * drawn.offset[:, 1:]).long()
        return _pick(enlarged, row, column)


def crop_and_flip(images: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Pads with black, crops, and mirrors, copying pixels exactly.

    Args:
        images: (n, channels, height, width).
        drawn: Uses its shift and flip.
    """
    import torch
    from torch.nn import functional as F

    height, width = images.shape[2:]
    row = torch.arange(height, device=images.device) + drawn.shift[:, :1]  # (n, height): where a row comes from
    column = torch.arange(width, device=images.device)
    column = torch.where(drawn.flip[:, None], width - 1 - column, column) + drawn.shift[:, 1:]  # (n, width)
    # A frame of one black pixel stands for everything outside the image.
    framed = F.pad(images, (1, 1, 1, 1))
    return _pick(framed, row.clamp(-1, height) + 1, column.clamp(-1, width) + 1)


def _pick(images: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """The pixels in each image's own rows (n, height) and columns (n, width)."""
    n, channels, _, width = images.shape
    source = (row[:, :, None] * width + column[:, None, :]).flatten(1)
    picked = images.flatten(2).gather(2, source[:, None].expand(n, channels, -1))
    return picked.view(n, channels, row.shape[1], column.shape[1])


def crop_flip_and_rotate(images: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Crops, mirrors and rotates about the crop's centre, in one bilinear interpolation; the outside is black.

    Args:
        images: (n, channels, height, width).
        drawn: Uses its shift, flip and angle.
    """
    import torch
    from torch.nn import functional as F

    _, _, height, width = images.shape
    # Output pixel (x, y), counted from the centre, comes from (mirror * (cos x - sin y) + shift_x, sin x + cos y +
    # shift_y): a term for each column plus a term for each row. No matrix product, so that neither autocast nor TF32
    # can blur the positions. grid_sample wants them in units of half the image.
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    angle = drawn.angle * (math.pi / 180)
    across, down = (1 - 2 * drawn.flip.float()) * (2 / width), 2 / height
    from_column = torch.stack((across * angle.cos(), down * angle.sin()), dim=1)
    from_row = torch.stack((-across * angle.sin(), down * angle.cos()), dim=1)
    shift = torch.stack((drawn.shift[:, 1] * (2 / width), drawn.shift[:, 0] * (2 / height)), dim=1)
    columns = from_column[:, None, None, :] * x[:, None] + shift[:, None, None, :]  # (n, 1, width, 2)
    rows = from_row[:, None, None, :] * y[:, None, None]  # (n, height, 1, 2)
    return F.grid_sample(images, columns + rows, mode="bilinear", padding_mode="zeros", align_corners=False)


def jitter_colours(images: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Brightness, then contrast, then saturation, as torchvision defines them, clamped to [0, 1] after each.

    Brightness b: b * image. Contrast c: c * image + (1 - c) * mean of its greys. Saturation s: s * image + (1 - s) *
    greys; an image of one channel is its own grey, so that saturation leaves it as it is.

    Args:
        images: (n, 1 or 3, height, width) in [0, 1].
        drawn: Uses its brightness, contrast and saturation.
    """
    import torch

    brightness, contrast, saturation = (
        factor[:, None, None, None] for factor in (drawn.brightness, drawn.contrast, drawn.saturation)
    )
    images = (images * brightness).clamp_(0, 1)
    images = torch.lerp(_grey(images).mean((1, 2, 3), keepdim=True), images, contrast).clamp_(0, 1)
    return torch.lerp(_grey(images), images, saturation).clamp_(0, 1)


def _grey(images: torch.Tensor) -> torch.Tensor:
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    grey: torch.Tensor = 0.2989 * red + 0.587 * green + 0.114 * blue  # ITU-R 601-2, as in torchvision and PIL
    return grey[:, None]


def _require_images(inputs: torch.Tensor, *, coloured: bool) -> None:
    if inputs.ndim != 4:
        raise WarmstartError(
            f"augment needs images, inputs of shape (n, channels, height, width), not {tuple(inputs.shape)}"
        )
    if coloured and inputs.shape[1] not in (1, 3):
        raise WarmstartError(f"augment.color_jitter needs images of 1 or 3 channels, not {inputs.shape[1]}")
