"""What a user's words mean: kinds of data, times of arrival, files of settings."""

import os

import numpy as np
import pytest

from warmstart_sim.advise.question import TRAINING, make_question
from warmstart_sim.errors import WarmstartError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with data of every kind."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos/train/cat/1.png", "photos/train/dog/2.PNG", "reviews/good/1.txt", "empty/none/1.pdf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "mail.csv").write_text("text,label,day\nhello,a,1\n")
    np.savez("mine.npz", x_train=np.ones((2, 2)), y_train=[0, 1])
    return tmp_path


@pytest.mark.parametrize(
    ("data", "component"),
    [
        ("digits", {"name": "digits"}),
        ("photos", {"name": "image_folder", "path": "photos", "size": 32}),
        ("reviews", {"name": "text_folder", "path": "reviews"}),
        ("mail.csv", {"name": "text_folder", "path": "mail.csv"}),
        ("mine.npz", {"name": "arrays", "path": "mine.npz"}),
        ("my_data:load", {"name": "my_data:load"}),
    ],
)
def test_the_kind_of_data_is_found(folder, data, component):
    question = make_question(data, "mlp")
    assert question.data == component
    assert question.order == 0
    assert question.training == TRAINING


@pytest.mark.parametrize(("data", "arrival"), [("mail.csv", "day"), ("photos", "mtime"), ("mine.npz", "day")])
def test_times_of_arrival_take_the_place_of_the_random_order(folder, data, arrival):
    question = make_question(data, "mlp", arrival=arrival, seed=3)
    assert question.data["arrival"] == arrival
    assert question.order is None


def test_settings_change_sections_and_a_file_replaces_training(folder):
    (folder / "mine.yaml").write_text("training: {until: {epochs: 3}}\nparts: {augment: [horizontal_flip]}\n")
    question = make_question(
        "photos", "small_cnn", training=folder / "mine.yaml",
        set=["data.size=8", "data.normalize=half", "model.channels=[4]", "training.batch_size=16"],
    )  # fmt: skip
    assert question.past(10, 0.2) == {
        "name": "past", "of": {"name": "image_folder", "path": "photos", "size": 8}, "order": 0, "samples": 10,
        "held_out": 0.2, "normalize": "half",
    }  # fmt: skip
    assert question.model == {"name": "small_cnn", "channels": [4]}
    assert question.training == {"until": {"epochs": 3}, "batch_size": 16}
    assert question.parts == {"augment": ["horizontal_flip"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": "digitz"}, "DATA: digitz: no such file, folder or data set; did you mean 'digits'"),
        ({"data": "empty"}, "DATA: the folder empty holds neither images"),
        ({"arrival": "mtime"}, "--arrival mtime: digits has no times of arrival"),
        ({"set": ["stream.order=random"]}, "--set stream: unknown section 'stream'"),
        ({"set": ["data.train_samples=3"]}, "--set data.train_samples: advise holds data out itself"),
    ],
)
def test_what_is_not_clear_is_refused(folder, arguments, message):
    with pytest.raises(WarmstartError, match=message):
        make_question(**{"data": "digits", "model": "mlp", **arguments})


def test_a_file_with_other_sections_is_refused(folder):
    (folder / "mine.yaml").write_text("strategies: {warm_start: {}}\n")
    with pytest.raises(WarmstartError, match="unknown section 'strategies'"):
        make_question("digits", "mlp", training=folder / "mine.yaml")


def test_it_works_without_a_folder_to_look_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert make_question("digits", "mlp").name == "digits"
    assert not os.listdir(tmp_path)
