"""The sets of photographs, on small sets in the real formats; nothing here uses the network."""

import numpy as np
import pytest
from PIL import Image

from warmstart_sim.datasets import photo_sets, validate
from warmstart_sim.datasets.known_sizes import PHOTO_SETS, PhotoSet
from warmstart_sim.datasets.photo_sets import birds2010, caltech101, cars196, cassava, oxford_iiit_pet, stanford_dogs
from warmstart_sim.errors import DataError


def paint(path, grey):
    """A grey image that is not square."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7), (grey, grey, grey)).save(path, quality=100)


def greys(samples):
    return np.round(samples.inputs.mean((1, 2, 3))).astype(int).tolist()


def test_oxford_pets_have_the_breeds_as_classes(tmp_path):
    folder = tmp_path / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for k, name in enumerate(("Abyssinian_100", "beagle_1", "beagle_2")):
        paint(folder / "images" / f"{name}.jpg", 50 * k)
    (folder / "annotations" / "trainval.txt").write_text("beagle_1 5 2 1\nAbyssinian_100 1 1 1\n")
    (folder / "annotations" / "test.txt").write_text("beagle_2 5 2 1\n")
    dataset = validate(oxford_iiit_pet(tmp_path, 0, size=8))
    assert (dataset.input_shape, dataset.classes) == ((3, 8, 8), 37)
    assert (greys(dataset.train), dataset.train.labels.tolist()) == ([50, 0], [4, 0])
    assert (greys(dataset.test), dataset.test.labels.tolist()) == ([100], [4])


def test_cars_count_from_zero(tmp_path):
    from scipy.io import savemat

    folder = tmp_path / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)

    def annotate(path, rows):
        table = np.array(rows, dtype=[("fname", object), ("class", object)])
        savemat(path, {"annotations": table})

    for part, grey in (("cars_train", 40), ("cars_test", 80)):
        paint(folder / part / "00001.jpg", grey)
        paint(folder / part / "00002.jpg", grey + 10)
    annotate(folder / "devkit" / "cars_train_annos.mat", [("00001.jpg", 196), ("00002.jpg", 1)])
    annotate(folder / "cars_test_annos_withlabels.mat", [("00001.jpg", 3), ("00002.jpg", 196)])
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(["a", "b"], dtype=object)})
    dataset = validate(cars196(tmp_path, 0, size=4))
    assert (greys(dataset.train), dataset.train.labels.tolist()) == ([40, 50], [195, 0])
    assert (greys(dataset.test), dataset.test.labels.tolist()) == ([80, 90], [2, 195])
    (folder / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(DataError, match=r"^cars196: cars_test_annos_withlabels.mat not found in .*unpack them there"):
        cars196(tmp_path, 0)


def test_caltech_trains_on_equally_many_of_each_class_and_tests_on_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(photo_sets, "CALTECH_TRAIN", 2)
    folder = tmp_path / "caltech101" / "101_ObjectCategories"
    for name, count, grey in (("BACKGROUND_Google", 3, 200), ("ant", 5, 0), ("wrench", 3, 100)):
        for k in range(count):
            paint(folder / name / f"image_{k + 1:04d}.jpg", grey + 10 * k)
    dataset = validate(caltech101(tmp_path, 0, size=4))
    assert dataset.train.labels.tolist() == [0, 0, 1, 1]
    assert dataset.test.labels.tolist() == [0, 0, 0, 1]
    assert sorted(greys(dataset.train) + greys(dataset.test)) == [0, 10, 20, 30, 40, 100, 110, 120]
    assert np.array_equal(caltech101(tmp_path, 1, size=4).train.inputs, dataset.train.inputs)


def test_sets_from_a_folder_need_their_classes(tmp_path, monkeypatch, write_images):
    monkeypatch.setitem(PHOTO_SETS, "cassava", PhotoSet(2, 4, 2))
    write_images(tmp_path / "cassava" / "train", {"cbb": 2, "healthy": 2})
    with pytest.raises(DataError, match=r"^cassava: train/CLASS/\* and test/CLASS/\* not found in"):
        cassava(tmp_path, 0)
    write_images(tmp_path / "cassava" / "test", {"cbb": 1, "healthy": 1})
    dataset = validate(cassava(tmp_path, 0, size=6))
    assert (dataset.name, dataset.input_shape, dataset.classes) == ("cassava", (3, 6, 6), 2)
    assert (dataset.train.labels.tolist(), dataset.test.labels.tolist()) == ([0, 0, 1, 1], [0, 1])
    monkeypatch.setitem(PHOTO_SETS, "cassava", PhotoSet(5, 4, 2))
    with pytest.raises(DataError, match=r"^cassava: .*train has 2 classes, but the set has 5$"):
        cassava(tmp_path, 0)


@pytest.mark.parametrize("function", [oxford_iiit_pet, cars196, caltech101, stanford_dogs, birds2010])
def test_without_files_one_line_says_what_is_missing_and_how_to_get_it(function, tmp_path):
    with pytest.raises(DataError) as caught:
        function(tmp_path, 0)
    line = str(caught.value)
    assert line.startswith(f"{function.__name__}: ")
    assert "not found in" in line
    assert "--rehearse" in line
    assert "\n" not in line
    assert list(tmp_path.iterdir()) == []
