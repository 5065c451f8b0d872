"""The Large Movie Review Dataset, from a folder, the archive as distributed, or a download."""

from __future__ import annotations

import gzip
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

import numpy as np
from pydantic import PositiveInt

from warmstart_sim.datasets.download import download, move
from warmstart_sim.datasets.known_sizes import TEXT_SETS
from warmstart_sim.datasets.tokenizing import Keep, Punctuation, TextOptions, Texts, read_text, text_dataset
from warmstart_sim.errors import DataError
from warmstart_sim.registry import DATASETS
from warmstart_sim.types import Dataset

FOLDER = "aclImdb"
ARCHIVE = "aclImdb_v1.tar.gz"
URL = f"https://ai.stanford.edu/~amaas/data/sentiment/{ARCHIVE}"
MD5 = "7c2ac02c03563afcf9b574c7e56c153a"
CLASSES = ("neg", "pos")


@DATASETS.register("imdb", "same_for_every_seed")
def imdb(
    root: Path,
    seed: int,
    *,
    vocabulary: PositiveInt = 20_000,
    min_count: PositiveInt = 2,
    length: PositiveInt = 400,
    keep: Keep = "start",
    lowercase: bool = True,
    punctuation: Punctuation = "drop",
) -> Dataset:
    """IMDB: 25,000 + 25,000 film reviews, negative (0) or positive (1), as tokens (Maas et al., 2011).

    Samples are sorted by class, then by file name. Reviews are tokenised once; the tokens are cached on disk.

    Args:
        root: The folder that contains `aclImdb`, or the archive `aclImdb_v1.tar.gz`, which is then unpacked (without
            the unlabelled reviews). If neither is there, the archive is downloaded.
        seed: Not used: the reviews and their split are fixed.
        vocabulary: The size of the vocabulary: the most frequent words of the training texts.
        min_count: Words that occur less often in the training texts are unknown.
        length: The length of a text in words; shorter texts are padded with 0 at the end.
        keep: Which part of a longer text is kept: its "start" or its "end".
        lowercase: Whether to convert texts to lower case.
        punctuation: "drop" punctuation marks and symbols, or "keep" each as a separate word.

    Raises:
        DataError: The set is missing and cannot be downloaded, is incomplete, or the archive is damaged.
    """
    folder = root / FOLDER
    if not folder.is_dir():
        if (root / ARCHIVE).is_file():
            _unpack_beside(root / ARCHIVE)
        else:
            download("imdb", root, [FOLDER], _fetch, missing=f"{FOLDER} and {ARCHIVE}")
    if missing := _find_missing(folder):
        raise DataError(
            f"imdb: {folder} is not complete: {missing}; delete it and run `warmstart-sim data imdb` on a machine with "
            f"network, or with {ARCHIVE} beside it"
        )
    options = TextOptions(vocabulary, min_count, length, keep, lowercase, punctuation)
    return text_dataset("imdb", _read_reviews(folder / "train"), _read_reviews(folder / "test"), len(CLASSES), options)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.txt"))


def _find_missing(folder: Path) -> str:
    """Describes a wrong number of files; empty if the set is complete."""
    known = TEXT_SETS["imdb"]
    for part, count in (("train", known.train_samples // 2), ("test", known.test_samples // 2)):
        for label in CLASSES:
            if (found := len(_files(folder / part / label))) != count:
                return f"{part}/{label} holds {found} texts instead of {count}"
    return ""


def _read_reviews(folder: Path) -> Texts:
    files = [_files(folder / label) for label in CLASSES]
    labels = np.repeat(np.arange(len(CLASSES), dtype=np.int64), [len(each) for each in files])
    return Texts([read_text("imdb", file) for each in files for file in each], labels)


def _fetch(folder: Path) -> None:
    from torchvision.datasets.utils import download_url

    download_url(URL, folder, ARCHIVE, MD5)
    _unpack(folder / ARCHIVE, folder)


def _unpack_beside(archive: Path) -> None:
    """Unpacks the archive to a folder beside it, completely or not at all."""
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=archive.parent) as folder:
        try:
            _unpack(archive, Path(folder))
        except Exception as error:  # tarfile, zlib and the disk raise many different errors
            raise DataError(
                f"imdb: cannot unpack {archive} ({' '.join(str(error).split())}); if it is damaged, delete it and run "
                "`warmstart-sim data imdb` on a machine with network"
            ) from error
        if missing := _find_missing(Path(folder) / FOLDER):
            raise DataError(f"imdb: {archive} is not complete: {FOLDER}/{missing}")
        move(Path(folder) / FOLDER, archive.parent / FOLDER)


def _unpack(archive: Path, folder: Path) -> None:
    with gzip.open(archive) as stream:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            tar.extractall(folder, filter=_extraction_filter)
        while stream.read(2**20):  # read to the end: gzip's checksum is there
            pass


def _extraction_filter(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """Rejects links and paths outside `folder`; leaves out the unlabelled reviews."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
        raise tarfile.TarError(f"{member.name!r} is not a plain file or folder inside it")
    return None if path.parts[:3] == (FOLDER, "train", "unsup") else tarfile.data_filter(member, folder)
