"""IMDB from a folder, an archive and a download, on small artificial sets; nothing here uses the network."""

import hashlib
import io
import os
import shutil
import tarfile
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from url_responses import BrokenResponse, Response, each_download_error

from warmstart_sim.datasets import imdb as module
from warmstart_sim.datasets import load, tokenizing, validate
from warmstart_sim.datasets.imdb import ARCHIVE, imdb
from warmstart_sim.datasets.known_sizes import TEXT_SETS, TextSet
from warmstart_sim.errors import DataError


@pytest.fixture
def pack(reviews, tmp_path):
    """Packs the small set and the given members into an archive; returns a root that contains only the archive."""

    def make(*members: tarfile.TarInfo, folder: str = "aclImdb") -> Path:
        root = tmp_path / "packed"
        root.mkdir()
        with tarfile.open(root / ARCHIVE, "w:gz") as tar:
            tar.add(reviews / "aclImdb", folder)
            for member in members:
                tar.addfile(member, io.BytesIO(b"x" * member.size))
        return root

    return make


def everything_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def same(one, other) -> bool:
    return one.digest() == other.digest()


def test_reviews_are_sorted_by_class_and_file_name(reviews):
    shutil.rmtree(reviews / "aclImdb")
    for part, count in (("train", 3), ("test", 2)):
        for label in ("pos", "neg"):
            folder = reviews / "aclImdb" / part / label
            folder.mkdir(parents=True)
            for name, word in [("2_1", "b"), ("10_9", "a"), ("3_4", "c")][:count]:
                (folder / f"{name}.txt").write_text(f"{label} {word}")
    dataset = imdb(reviews, 0, min_count=1, length=2)
    vocabulary = ["neg", "pos", "a", "b", "c"]
    texts = [" ".join(vocabulary[token - 2] for token in row) for row in dataset.train.inputs]
    assert texts == ["neg a", "neg b", "neg c", "pos a", "pos b", "pos c"]
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]


def test_unlabelled_reviews_are_ignored(reviews):
    assert imdb(reviews, 0).vocabulary_size == 2 + len({"a", "bad", "film", "good", "it's"})


def test_options_reach_the_tokens(reviews):
    dataset = imdb(reviews, 0, vocabulary=1, min_count=2, length=2, keep="end", lowercase=False, punctuation="keep")
    assert dataset.vocabulary_size == 3
    assert dataset.train.inputs.tolist() == [[1, 1], [1, 2], [1, 1], [1, 2], [1, 1], [1, 2]]  # the one word is "film"


def test_a_second_load_tokenises_nothing_and_is_equal(reviews, monkeypatch):
    first = imdb(reviews, 0)
    monkeypatch.setattr(tokenizing, "_tokenizer", None)
    again = imdb(reviews, 0)
    assert same(again, first)
    assert again.vocabulary_size == first.vocabulary_size
    (reviews / "aclImdb" / "test" / "pos" / "0.txt").write_text("another text")
    with pytest.raises(TypeError):
        imdb(reviews, 0)


@pytest.mark.parametrize("part", ["train/neg", "test/pos"])
def test_an_incomplete_folder_is_reported_with_the_part(reviews, part):
    (reviews / "aclImdb" / part / "1.txt").unlink()
    count = 3 if part == "train/neg" else 2
    with pytest.raises(DataError, match=f"not complete: {part} holds {count - 1} texts instead of {count}; delete it"):
        imdb(reviews, 0)
    shutil.rmtree(reviews / "aclImdb" / part)
    with pytest.raises(DataError, match=f"not complete: {part} holds 0 texts"):
        imdb(reviews, 0)


def test_a_review_that_is_not_utf_8_is_named(reviews):
    (reviews / "aclImdb" / "test" / "neg" / "1.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"imdb: .*test.neg.1\.txt is not UTF-8"):
        imdb(reviews, 0)


def test_the_archive_as_distributed_gives_the_same_data_and_is_kept(pack, reviews, monkeypatch):
    root = pack()
    assert same(imdb(root, 0), imdb(reviews, 0))
    assert sorted(os.listdir(root)) == ["aclImdb", ARCHIVE]
    absent = {"aclImdb/train/unsup", "aclImdb/train/unsup/0.txt", "aclImdb/train/unsup/1.txt", ARCHIVE}
    assert set(everything_below(root)) ^ set(everything_below(reviews)) == absent
    monkeypatch.setattr(module, "_unpack", None)  # the second time the folder is there
    assert same(imdb(root, 0), imdb(reviews, 0))


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


@pytest.mark.parametrize(
    "malicious",
    [
        [member("../escaped", size=1)],
        [member("aclImdb/../../escaped", size=1)],
        [member("{outside}/escaped", size=1)],
        [member("aclImdb/train/unsup/../../../../escaped", size=1)],
        [member("aclImdb/link", tarfile.SYMTYPE, "{outside}"), member("aclImdb/link/escaped", size=1)],
        [member("aclImdb/link", tarfile.SYMTYPE, "../.."), member("aclImdb/link/escaped", size=1)],
        [member("aclImdb/train/unsup/link", tarfile.SYMTYPE, "../../README")],
        [member("aclImdb/hard", tarfile.LNKTYPE, "{outside}/kept")],
        [member("aclImdb/hard", tarfile.LNKTYPE, "aclImdb/README")],
        [member("aclImdb/device", tarfile.CHRTYPE)],
        [member("aclImdb/pipe", tarfile.FIFOTYPE)],
    ],
    ids=lambda members: f"{members[0].name} {members[0].linkname}",
)
def test_an_archive_with_paths_outside_is_refused_and_nothing_is_written(pack, malicious, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    for each in malicious:
        each.name, each.linkname = each.name.format(outside=outside), each.linkname.format(outside=outside)
    root = pack(*malicious)
    before = everything_below(tmp_path)
    with pytest.raises(DataError, match=r"cannot unpack .* is not a plain file or folder inside it") as caught:
        imdb(root, 0)
    assert "\n" not in str(caught.value)
    assert everything_below(tmp_path) == before
    assert (outside / "kept").read_text() == "kept"


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_archive_leaves_nothing_behind(pack, share):
    root = pack(member("aclImdb/filler", size=100_000))
    content = (root / ARCHIVE).read_bytes()
    (root / ARCHIVE).write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        DataError, match=f"imdb: cannot unpack .*{ARCHIVE} .*delete it and run `warmstart-sim data"
    ) as e:
        imdb(root, 0)
    assert "\n" not in str(e.value)
    assert os.listdir(root) == [ARCHIVE]


@pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.7, 0.9, 0.995])
def test_a_damaged_archive_leaves_nothing_behind(pack, place):
    root = pack()
    content = bytearray((root / ARCHIVE).read_bytes())
    content[int(place * len(content))] ^= 1
    (root / ARCHIVE).write_bytes(content)
    with pytest.raises(DataError, match="cannot unpack"):
        imdb(root, 0)
    assert os.listdir(root) == [ARCHIVE]


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>" * 100], ids=["empty", "a page"])
def test_another_file_format_is_refused(tmp_path, content):
    (tmp_path / ARCHIVE).write_bytes(content)
    with pytest.raises(DataError, match="cannot unpack"):
        imdb(tmp_path, 0)
    assert os.listdir(tmp_path) == [ARCHIVE]


def test_an_incomplete_or_other_archive_is_refused(pack, reviews):
    (reviews / "aclImdb" / "train" / "pos" / "0.txt").unlink()
    root = pack()
    with pytest.raises(DataError, match="is not complete: aclImdb/train/pos holds 2 texts instead of 3"):
        imdb(root, 0)
    assert os.listdir(root) == [ARCHIVE]
    shutil.rmtree(root)
    with pytest.raises(DataError, match="is not complete: aclImdb/train/neg holds 0 texts"):
        imdb(pack(folder="other"), 0)


def test_an_interrupt_while_unpacking_leaves_nothing_behind(pack, monkeypatch):
    root = pack()
    unpack = module._unpack

    def interrupted(archive, folder):
        unpack(archive, folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_unpack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        imdb(root, 0)
    assert os.listdir(root) == [ARCHIVE]


def test_another_process_may_unpack_at_the_same_time(pack, reviews, monkeypatch):
    root = pack()
    unpack = module._unpack

    def overtaken(archive, folder):
        unpack(archive, folder)
        shutil.copytree(reviews / "aclImdb", root / "aclImdb")

    monkeypatch.setattr(module, "_unpack", overtaken)
    assert same(imdb(root, 0), imdb(reviews, 0))
    assert sorted(os.listdir(root)) == ["aclImdb", ARCHIVE]


def test_a_missing_set_is_downloaded_and_only_the_set_stays(pack, reviews, tmp_path, monkeypatch, capfd):
    content = (pack() / ARCHIVE).read_bytes()
    asked = []

    def urlopen(request):
        asked.append(request.full_url)
        return Response(request.full_url, content)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(module, "MD5", hashlib.md5(content).hexdigest())
    root = tmp_path / "fetched"
    assert same(imdb(root, 0), imdb(reviews, 0))
    assert os.listdir(root) == ["aclImdb"]
    assert set(asked) == {"https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz"}
    assert capfd.readouterr() == ("", "")


def test_a_download_with_a_wrong_checksum_leaves_nothing_behind(pack, tmp_path, monkeypatch):
    content = (pack() / ARCHIVE).read_bytes()
    monkeypatch.setattr(urllib.request, "urlopen", lambda request: Response(request.full_url, content))
    with pytest.raises(DataError, match="the download failed"):
        imdb(tmp_path / "fetched", 0)
    assert os.listdir(tmp_path / "fetched") == []


@each_download_error
def test_an_interrupted_download_leaves_nothing_behind(error, tmp_path, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda request: BrokenResponse(request.full_url, error))
    with pytest.raises((DataError, KeyboardInterrupt)) as caught:
        imdb(tmp_path, 0)
    assert isinstance(caught.value, KeyboardInterrupt) == isinstance(error, KeyboardInterrupt)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_without_folder_archive_or_network_one_line_says_how_to_get_it(tmp_path):
    with pytest.raises(DataError) as caught:
        imdb(tmp_path, 0)
    line = str(caught.value)
    assert line.startswith(f"imdb: aclImdb and {ARCHIVE} not found in {tmp_path}")
    for hint in ("no network in tests", "`warmstart-sim data imdb`", "--data-root", "--rehearse"):
        assert hint in line
    assert "\n" not in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.data
def test_the_real_reviews(real_data, tmp_path, monkeypatch):
    real = real_data / "aclImdb"
    if not real.is_dir():
        pytest.skip(f"{real_data} has no aclImdb")
    assert module._find_missing(real) == ""
    for part in ("train", "test"):  # every fifth is enough to see what is in them
        for label in module.CLASSES:
            (tmp_path / "aclImdb" / part / label).mkdir(parents=True)
            for file in module._files(real / part / label)[::5]:
                (tmp_path / "aclImdb" / part / label / file.name).symlink_to(file)
    monkeypatch.setitem(TEXT_SETS, "imdb", TextSet(classes=2, train_samples=5000, test_samples=5000))
    dataset = validate(load("imdb", {"length": 200}, tmp_path, 0))
    assert dataset.train.inputs.shape == dataset.test.inputs.shape == (5000, 200)
    assert np.bincount(dataset.train.labels).tolist() == np.bincount(dataset.test.labels).tolist() == [2500] * 2
    assert dataset.vocabulary_size == 20_002
    assert dataset.notes == ()
    for samples in (dataset.train, dataset.test):
        words = samples.inputs > 0
        assert (samples.inputs == 1).sum() / words.sum() < 0.04  # unknown
        assert 150 < words.sum(axis=1).mean() < 170
