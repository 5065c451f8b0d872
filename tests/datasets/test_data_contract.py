"""Properties of every registered data set."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from warmstart_sim.datasets import load, loading, validate
from warmstart_sim.datasets.known_sizes import IMAGE_SETS, PHOTO_SETS, TEXT_SETS, ImageSetName
from warmstart_sim.datasets.paths import data_root
from warmstart_sim.errors import DataError
from warmstart_sim.registry import DATASETS
from warmstart_sim.types import Dataset

REAL_LOADED: dict = {}  # what `load` keeps in memory of real data, for all tests: decoding takes a second
CORRUPTED = ("cifar10_corrupted", "mnist_corrupted")
PUBLIC = ("cifar10", "cifar100", "svhn", "mnist", "fashion_mnist", "tiny_imagenet", *CORRUPTED, *PHOTO_SETS)
ALL = [pytest.param(name, marks=pytest.mark.data if name in PUBLIC else ()) for name in DATASETS.names()]


@pytest.fixture
def arguments(images, npz, reviews, monkeypatch):
    """Returns (root, options) to load a data set; real files replace downloads."""

    def of(name: str):
        options = {
            "image_folder": {"path": images, "size": 8},
            "arrays": {"path": npz()},
            "text_file": {"path": Path(__file__).parents[2] / "LICENSE", "length": 16},
            "text_folder": {"path": reviews / "aclImdb" / "test", "min_count": 1},
            "synthetic": {"train_samples": 500, "test_samples": 100},
            "past": {"of": {"name": "digits"}, "order": 0, "samples": 400, "held_out": 0.2},
        }.get(name, {})
        if name in PUBLIC:
            if not os.environ.get("WARMSTART_SIM_DATA"):
                pytest.skip("needs real data: set WARMSTART_SIM_DATA")
            monkeypatch.setattr(loading, "_recent", REAL_LOADED)
            try:
                load(name, options, data_root(), 0)
            except DataError as error:
                if "not found in" not in str(error):
                    raise
                pytest.skip(re.split("[;,.] ", str(error))[0])
        return (reviews if name == "imdb" else data_root()), options

    return of


def same(one: Dataset, other: Dataset) -> bool:
    return all(
        np.array_equal(a, b)
        for x, y in ((one.train, other.train), (one.test, other.test))
        for a, b in ((x.inputs, y.inputs), (x.labels, y.labels))
    )


@pytest.mark.parametrize("name", ALL)
def test_it_meets_the_contract_and_every_class_has_training_samples(name, arguments):
    root, options = arguments(name)
    dataset = validate(load(name, options, root, 0))
    assert dataset.name == name
    assert np.array_equal(np.unique(dataset.train.labels), np.arange(dataset.classes))
    assert len(dataset.test) > 0
    if name in IMAGE_SETS:
        known = IMAGE_SETS[name]
        assert (dataset.input_shape, dataset.classes) == (known.shape, known.classes)
        assert (len(dataset.train), len(dataset.test)) == (known.train_samples, known.test_samples)
    if name in PHOTO_SETS:
        photos = PHOTO_SETS[name]
        found = (dataset.input_shape, dataset.classes, len(dataset.train), len(dataset.test))
        assert found == ((3, 224, 224), photos.classes, photos.train_samples, photos.test_samples)
    if name in TEXT_SETS:
        texts = TEXT_SETS[name]
        found = (dataset.classes, len(dataset.train), len(dataset.test))
        assert found == (texts.classes, texts.train_samples, texts.test_samples)


@pytest.mark.parametrize("name", ALL)
def test_data_depend_on_the_seed_unless_marked_otherwise(name, arguments):
    root, options = arguments(name)
    function, loaded = DATASETS.get(name), load(name, options, root, 0)
    same_for_every_seed = DATASETS.has_trait(name, "same_for_every_seed")
    assert same(function(root, 1, **options), loaded) == same_for_every_seed
    assert same_for_every_seed or same(function(root, 0, **options), loaded)


@pytest.mark.parametrize("name", ALL)
def test_it_is_loaded_once_and_its_arrays_are_read_only(name, arguments):
    root, options = arguments(name)
    dataset = load(name, options, root, 0)
    assert load(name, dict(options), root, 0) is dataset
    assert (load(name, options, root, 1) is dataset) == DATASETS.has_trait(name, "same_for_every_seed")
    for samples in (dataset.train, dataset.test):
        with pytest.raises(ValueError, match="read-only"):
            samples.labels[0] = 0
        with pytest.raises(ValueError, match="read-only"):
            samples.inputs[0] = 0


@pytest.mark.parametrize("name", DATASETS.names())
def test_its_options_have_a_schema_and_it_has_a_summary(name):
    assert DATASETS.schema(name).model_json_schema()["type"] == "object"
    assert DATASETS.summary(name).endswith(".")


def test_the_table_of_image_sets_names_those_that_are_registered():
    assert set(IMAGE_SETS) == set(get_args(ImageSetName))
    assert set(IMAGE_SETS) <= set(DATASETS.names())


def test_the_tables_of_photo_and_text_sets_name_those_that_are_registered():
    assert {*PHOTO_SETS, *TEXT_SETS} <= set(DATASETS.names())


def test_names_and_schemas_are_known_without_importing_torch():
    code = (
        "import sys; from warmstart_sim.registry import DATASETS; import warmstart_sim.datasets;"
        "[DATASETS.schema(name) for name in DATASETS.names()];"
        "heavy = ('torch', 'torchvision', 'sklearn', 'scipy', 'PIL', 'pandas', 'tokenizers');"
        "print([name for name in heavy if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
