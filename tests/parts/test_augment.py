"""Augmentation against torchvision and kornia, fed with the same draws."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as oracle

from warmstart_sim.errors import WarmstartError
from warmstart_sim.parts.augment import (
    Augment,
    EnlargeAndCrop,
    crop_and_flip,
    crop_flip_and_rotate,
    draw,
    jitter_colours,
)
from warmstart_sim.registry import PARTS
from warmstart_sim.types import Batch, Layout, RoundContext

EVERYTHING = {"random_crop": 4, "horizontal_flip": 0.5, "color_jitter": 0.25, "rotation": 2.0}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(n=16, channels=3, height=12, width=9, seed=1):
    return torch.rand(n, channels, height, width, generator=seeded(seed))


def transform_of(**strengths):
    layout = Layout(parameters=frozenset(), norm_affine=frozenset(), blocks=(), head="head")
    return Augment(**strengths)(
        {}, {}, RoundContext(round=1, layout=layout, generator=lambda purpose: seeded())
    ).transform


def augmented(images, seed=0, **strengths):
    batch = Batch(inputs=images, labels=torch.arange(len(images)), generator=seeded(seed))
    return transform_of(**strengths)(batch)


def torchvision_crop_and_flip(image, shift, flip, padding):
    top, left = (shift + padding).tolist()
    cropped = oracle.crop(oracle.pad(image, padding), top, left, *image.shape[-2:])
    return oracle.hflip(cropped) if flip else cropped


@pytest.mark.parametrize("padding", [0, 1, 4, 20])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_crop_and_flip_copy_the_pixels_that_torchvision_copies(padding, channels):
    images = photos(channels=channels)
    drawn = draw(16, Augment(random_crop=padding, horizontal_flip=0.5), seeded())
    expected = map(torchvision_crop_and_flip, images, drawn.shift, drawn.flip, [padding] * 16)
    assert torch.equal(crop_and_flip(images, drawn), torch.stack(list(expected)))


def test_an_enlarged_crop_equals_torchvisions_resize_and_crop():
    images, share = photos(), 0.3
    drawn = draw(16, Augment(enlarged_crop=share), seeded())
    size = [12 + 4, 9 + 3]  # 3.6 and 2.7 pixels more
    places = (torch.tensor([4 + 1, 3 + 1]) * drawn.offset).long().tolist()
    expected = [
        oracle.crop(oracle.resize(image, size, InterpolationMode.BILINEAR, antialias=False), top, left, 12, 9)
        for image, (top, left) in zip(images, places, strict=True)
    ]
    torch.testing.assert_close(EnlargeAndCrop(share)(images, drawn), torch.stack(expected), rtol=0, atol=1e-6)
    assert torch.equal(augmented(images, enlarged_crop=share).inputs, EnlargeAndCrop(share)(images, drawn))


def test_an_enlarged_crop_is_anywhere_and_leaves_the_other_draws_of_the_batch():
    drawn = draw(20_000, Augment(**EVERYTHING, enlarged_crop=0.2), seeded())
    values, counts = (5 * drawn.offset).long().unique(return_counts=True)
    assert values.tolist() == [0, 1, 2, 3, 4]
    assert counts / 40_000 == pytest.approx([1 / 5] * 5, abs=0.01)
    assert torch.equal(drawn.shift, draw(20_000, Augment(**EVERYTHING), seeded()).shift)
    assert transform_of(enlarged_crop=0.4) == transform_of(enlarged_crop=0.4) != transform_of(enlarged_crop=0.5)
    assert PARTS.schema("augment").model_validate({"enlarged_crop": True}).enlarged_crop * 224 == 24
    assert transform_of(enlarged_crop=0) is None


@pytest.mark.parametrize("degrees", [2, 30, 180])
def test_rotation_equals_torchvision(degrees):
    images = photos()
    drawn = draw(16, Augment(rotation=degrees), seeded())
    expected = [
        oracle.rotate(image, angle, InterpolationMode.BILINEAR)
        for image, angle in zip(images, drawn.angle.tolist(), strict=True)
    ]
    torch.testing.assert_close(crop_flip_and_rotate(images, drawn), torch.stack(expected), rtol=0, atol=2e-5)


def test_a_quarter_turn_goes_counter_clockwise():
    images = photos(height=9, width=9)
    drawn = dataclasses.replace(draw(16, Augment(), seeded()), angle=torch.full((16,), 90.0))
    torch.testing.assert_close(crop_flip_and_rotate(images, drawn), images.rot90(dims=(2, 3)), rtol=0, atol=2e-5)


def test_crop_flip_and_rotation_in_one_sampling_equal_their_product_in_kornia():
    """Kornia warps by the forward map: shift, then mirror, then turn about the centre."""
    from kornia.geometry.transform import get_rotation_matrix2d, warp_affine

    n, height, width = 16, 12, 9
    images = photos(n, 3, height, width)
    drawn = draw(n, Augment(random_crop=3, horizontal_flip=0.5, rotation=25), seeded())
    shift, mirror, turn = (torch.eye(3).repeat(n, 1, 1) for _ in range(3))
    shift[:, :2, 2] = -drawn.shift.flip(1).float()
    mirror[drawn.flip] = torch.tensor([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]])
    centre = torch.tensor([[(width - 1) / 2, (height - 1) / 2]]).repeat(n, 1)
    turn[:, :2] = get_rotation_matrix2d(centre, drawn.angle, torch.ones(n, 2))
    expected = warp_affine(images, (turn @ mirror @ shift)[:, :2], (height, width), align_corners=True)
    torch.testing.assert_close(crop_flip_and_rotate(images, drawn), expected, rtol=0, atol=2e-5)


def test_the_sampling_without_rotation_equals_the_exact_copy():
    images = photos()
    drawn = draw(16, Augment(random_crop=4, horizontal_flip=0.5), seeded())
    torch.testing.assert_close(crop_flip_and_rotate(images, drawn), crop_and_flip(images, drawn), rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_equal_torchvision(channels):
    images = photos(channels=channels)
    drawn = draw(16, Augment(color_jitter=0.9), seeded())
    expected = []
    for image, *factors in zip(images, drawn.brightness, drawn.contrast, drawn.saturation, strict=True):
        adjusts = (oracle.adjust_brightness, oracle.adjust_contrast, oracle.adjust_saturation)
        for adjust, factor in zip(adjusts, factors, strict=True):
            image = adjust(image, factor.item())
        expected.append(image)
    torch.testing.assert_close(jitter_colours(images, drawn), torch.stack(expected), rtol=0, atol=2e-6)


def test_saturation_leaves_an_image_of_one_channel_as_it_is():
    images = photos(channels=1)
    neutral = draw(16, Augment(), seeded())
    drawn = dataclasses.replace(neutral, saturation=torch.linspace(0, 2, 16))
    assert torch.equal(jitter_colours(images, drawn), images)


@pytest.mark.parametrize("step", [crop_and_flip, crop_flip_and_rotate])
def test_what_lies_outside_the_image_is_black(step):
    white = torch.ones(16, 3, 6, 6)
    drawn = draw(16, Augment(random_crop=4), seeded())
    for image, (down, right) in zip(step(white, drawn), drawn.shift.tolist(), strict=True):
        inside = torch.zeros(6, 6)
        inside[max(0, -down) : 6 - max(0, down), max(0, -right) : 6 - max(0, right)] = 1
        torch.testing.assert_close(image, inside.expand(3, 6, 6), rtol=0, atol=1e-5)
    far = dataclasses.replace(drawn, shift=torch.full((16, 2), 100))
    assert torch.equal(step(white, far), torch.zeros_like(white))


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 4), st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9)),
    random_crop=st.integers(0, 12),
    horizontal_flip=st.floats(0, 1),
    color_jitter=st.floats(0, 1),
    rotation=st.floats(0, 180),
    white=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_pixels_stay_in_the_unit_interval_and_the_batch_stays_as_it_was(shape, white, seed, **strengths):
    images = torch.ones(shape) if white else photos(*shape, seed=seed)
    before = images.clone()
    if not any(strengths.values()):
        return
    batch = augmented(images, seed, **strengths)
    assert torch.equal(images, before)
    assert torch.equal(batch.labels, torch.arange(len(images)))
    assert batch.inputs.shape == images.shape
    assert batch.inputs.dtype == torch.float32
    # The four weights of a bilinear sample add up to 1 but for rounding.
    assert batch.inputs.min() >= 0
    assert batch.inputs.max() <= 1 + 1e-6


def test_the_same_seed_draws_the_same_and_another_does_not():
    images = photos()
    first, again, other = (augmented(images, seed, **EVERYTHING).inputs for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    augmented(photos(), **EVERYTHING)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_each_batch_draws_anew():
    transform = transform_of(**EVERYTHING)
    batch = Batch(photos(), torch.zeros(16, dtype=torch.int64), seeded())
    assert not torch.equal(transform(batch).inputs, transform(batch).inputs)


def test_transforms_are_equal_exactly_where_their_strengths_are():
    assert transform_of(**EVERYTHING) == transform_of(**EVERYTHING)
    for name in EVERYTHING:
        assert transform_of(**EVERYTHING) != transform_of(**{**EVERYTHING, name: 1})


def test_arms_that_differ_in_one_augmentation_share_the_draws_of_the_others():
    crop_only, full = seeded(), seeded()
    for _ in range(3):
        bare, rich = draw(16, Augment(random_crop=4), crop_only), draw(16, Augment(**EVERYTHING), full)
        assert torch.equal(bare.shift, rich.shift)


def test_draws_are_uniform_over_what_the_options_allow():
    n = 50_000
    drawn = draw(n, Augment(**EVERYTHING), seeded())
    for axis in (0, 1):
        values, counts = drawn.shift[:, axis].unique(return_counts=True)
        assert values.tolist() == list(range(-4, 5))
        assert counts / n == pytest.approx([1 / 9] * 9, abs=0.01)
    assert drawn.flip.float().mean().item() == pytest.approx(0.5, abs=0.01)
    for values, low, high in [(drawn.angle, -2, 2)] + [
        (factor, 0.75, 1.25) for factor in (drawn.brightness, drawn.contrast, drawn.saturation)
    ]:
        quartiles = torch.quantile(values, torch.linspace(0, 1, 5)).tolist()
        assert quartiles == pytest.approx(torch.linspace(low, high, 5).tolist(), abs=0.02 * (high - low))
    rows, columns = drawn.shift.T
    everything = (rows, columns, drawn.flip, drawn.angle, drawn.brightness, drawn.contrast, drawn.saturation)
    correlations = torch.corrcoef(torch.stack([values.float() for values in everything]))
    assert (correlations - torch.eye(7)).abs().max() < 0.02


@pytest.mark.parametrize("strengths", [{name: value} for name, value in EVERYTHING.items()], ids=str)
def test_each_augmentation_alone_changes_images(strengths):
    images = photos()
    assert not torch.equal(augmented(images, **strengths).inputs, images)


def test_nothing_on_is_no_hook_at_all():
    assert transform_of() is None


@pytest.mark.parametrize("step", [crop_and_flip, crop_flip_and_rotate, jitter_colours, EnlargeAndCrop(2)])
def test_no_step_reads_a_value_back(step):
    """On the meta device there are no values, so anything that would wait for the device fails."""
    drawn = draw(8, Augment(**EVERYTHING), seeded())
    drawn = type(drawn)(**{name: value.to("meta") for name, value in vars(drawn).items()})
    assert step(photos(8).to("meta"), drawn).shape == (8, 3, 12, 9)


def test_inputs_that_are_no_images_are_one_line():
    with pytest.raises(WarmstartError, match=r"^augment needs images, .* not \(4, 7\)$"):
        augmented(torch.zeros(4, 7), **EVERYTHING)
    with pytest.raises(WarmstartError, match=r"^augment.color_jitter needs images of 1 or 3 channels, not 5$"):
        augmented(torch.zeros(4, 5, 8, 8), **EVERYTHING)
    assert augmented(photos(channels=5), random_crop=2).inputs.shape == (16, 5, 12, 9)


def test_true_means_the_usual_strength_and_false_none():
    schema = PARTS.schema("augment")
    assert schema.model_validate(dict.fromkeys(EVERYTHING, True)).model_dump(exclude_none=True) == EVERYTHING
    assert schema.model_validate(dict.fromkeys(EVERYTHING, False)) == schema()
    assert Augment(**schema.model_validate({"random_crop": True}).model_dump()) == Augment(random_crop=4)


@pytest.mark.parametrize(
    "options",
    [
        {"random_crop": -1},
        {"random_crop": 1.5},
        {"horizontal_flip": 1.1},
        {"color_jitter": 2},
        {"rotation": 181},
        {"enlarged_crop": -1},
        {"rotation": float("nan")},
        {"rotate": 2},
    ],
    ids=str,
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ValidationError):
        PARTS.schema("augment").model_validate(options)


def test_the_options_are_known_without_torch():
    code = (
        "import sys\n"
        "from warmstart_sim.registry import PARTS\n"
        "PARTS.schema('augment').model_json_schema()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
