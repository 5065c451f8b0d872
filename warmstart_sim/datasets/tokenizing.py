"""Builds a vocabulary from the training texts and converts texts to tokens, the numbers of their words.

A word is a sequence of letters, marks and digits of any script, and may contain apostrophes, plain or typographic:
don't, film's, o'clock. Any other character ends a word. Before the texts are split, HTML tags become spaces
(`good<br />film`), HTML entities become characters, and accents are combined with their letters.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from warmstart_sim.datasets.disk_cache import cached
from warmstart_sim.errors import DataError
from warmstart_sim.types import Dataset, IntArray, Samples

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Keep = Literal["start", "end"]
Punctuation = Literal["drop", "keep"]

PADDING, UNKNOWN, FIRST_WORD = 0, 1, 2
RESERVED = {"<padding>": PADDING, "<unknown>": UNKNOWN}  # these words never occur in a text: brackets end a word

MARKUP = re.compile(r"</?[A-Za-z!][^<>]*>")
WORD = r"[\p{L}\p{M}\p{N}]+(?:'[\p{L}\p{M}\p{N}]+)*"
WORD_OR_MARK = rf"{WORD}|[\p{{P}}\p{{S}}]"
BATCH = 1000  # texts tokenised at a time, which bounds the memory
CACHE_FORMAT = 1  # increment when tokenising changes


@dataclass(frozen=True)
class Texts:
    """Texts and their class indices, shape (n,)."""

    texts: Sequence[str]
    labels: IntArray


@dataclass(frozen=True)
class TextOptions:
    """How to convert texts to tokens; documented in the data sets' functions."""

    vocabulary: int
    min_count: int
    length: int
    keep: Keep
    lowercase: bool
    punctuation: Punctuation


def read_text(name: str, file: Path) -> str:
    """Reads a UTF-8 file, with or without a byte order mark.

    Raises:
        DataError: The file is not UTF-8. The message begins with the data set's `name`.
    """
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: {file} is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error


def text_dataset(name: str, train: Texts, test: Texts, classes: int, options: TextOptions) -> Dataset:
    """Tokenises texts, int64 (n, length): 0 is padding, 1 an unknown word, 2 the most frequent word, and so on.

    Vocabulary and tokens are cached on disk under a hash of the texts and the options, so texts are tokenised once. A
    text without words becomes one unknown word, and the data set's notes report how many such texts there are.

    Raises:
        DataError: No word of the training texts is frequent enough.
    """
    words = build_vocabulary(name, train.texts, options)
    tokens = tokenize([*train.texts, *test.texts], words, options)
    empty = tokens[:, 0] == PADDING
    tokens[empty, 0] = UNKNOWN
    end = len(train.texts)
    return Dataset(
        name,
        Samples(tokens[:end], train.labels),
        Samples(tokens[end:], test.labels),
        classes,
        vocabulary_size=FIRST_WORD + len(words),
        notes=_notes(int(empty[:end].sum()), int(empty[end:].sum())),
    )


def _notes(train: int, test: int) -> tuple[str, ...]:
    if train + test == 0:
        return ()
    return (f"texts without words, each replaced by one unknown word: {train} training texts, {test} test texts",)


def build_vocabulary(name: str, texts: Sequence[str], options: TextOptions) -> list[str]:
    """Returns the words of `texts`, the most frequent first, ties in alphabetical order.

    Args:
        name: The data set's name, for errors.
        texts: The training texts.
        options: At most `vocabulary` words, each seen at least `min_count` times.

    Raises:
        DataError: There is no such word.
    """

    def count() -> NDArray[np.uint8]:
        from tokenizers import trainers

        trainer = trainers.WordLevelTrainer(
            vocab_size=options.vocabulary, min_frequency=options.min_count, show_progress=False
        )
        tokenizer = _tokenizer([], options.punctuation)
        with _one_thread():
            tokenizer.train_from_iterator((plain(text, options.lowercase) for text in texts), trainer)
        rank = tokenizer.get_vocab()
        if not rank:
            raise DataError(
                f"{name}: no word occurs min_count = {options.min_count} times in the {len(texts)} training texts, so "
                "the vocabulary is empty; lower `min_count`, or choose punctuation: keep for texts without letters"
            )
        return np.frombuffer("\n".join(sorted(rank, key=rank.__getitem__)).encode(), dtype=np.uint8)

    counting = (options.vocabulary, options.min_count, options.lowercase, options.punctuation)
    return cached(f"vocabulary-{_digest(texts, counting)}", (None,), count).tobytes().decode().split("\n")


def tokenize(texts: Sequence[str], words: Sequence[str], options: TextOptions) -> IntArray:
    """Converts texts to tokens, int64 (n, length), padded with 0: `words[i]` becomes i + 2, and any other word 1.

    Texts that are too long are cut to their start or their end (`options.keep`).
    """
    dtype = np.min_scalar_type(FIRST_WORD + len(words))

    def encode() -> NDArray[Any]:
        tokenizer = _tokenizer(words, options.punctuation)
        tokenizer.enable_truncation(options.length, direction="right" if options.keep == "start" else "left")
        tokenizer.enable_padding(length=options.length, pad_id=PADDING)
        tokens = np.empty((len(texts), options.length), dtype)
        for start in range(0, len(texts), BATCH):
            batch = [plain(text, options.lowercase) for text in texts[start : start + BATCH]]
            with _one_thread():
                encoded = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            tokens[start : start + BATCH] = [each.ids for each in encoded]
        return tokens

    encoding = (words, options.length, options.keep, options.lowercase, options.punctuation)
    stored = cached(f"tokens-{_digest(texts, encoding)}", (len(texts), options.length), encode, dtype)
    return stored.astype(np.int64)


def plain(text: str, lowercase: bool) -> str:
    """Removes markup, composes characters (NFC) and replaces typographic apostrophes by plain ones.

    >>> plain("Rock &amp; roll:<br />it’s FINE", lowercase=True)
    "rock & roll: it's fine"
    """
    text = html.unescape(MARKUP.sub(" ", text)).replace("’", "'")
    return unicodedata.normalize("NFC", text.lower() if lowercase else text)


def _tokenizer(words: Sequence[str], punctuation: Punctuation) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    numbers = RESERVED | {word: number for number, word in enumerate(words, start=FIRST_WORD)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<unknown>"))
    wanted = Regex(WORD if punctuation == "drop" else WORD_OR_MARK)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(wanted, behavior="removed", invert=True)
    return tokenizer


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Makes the tokenizers library use one thread, unless the user has set its variable.

    Cells already use all cores, and after using threads, older versions warn at every fork of the process.
    """
    if "TOKENIZERS_PARALLELISM" in os.environ:
        yield
        return
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        os.environ.pop("TOKENIZERS_PARALLELISM", None)


def _digest(texts: Sequence[str], settings: tuple[object, ...]) -> str:
    digest = hashlib.blake2b(repr((CACHE_FORMAT, settings)).encode(), digest_size=20)
    for text in texts:
        content = text.encode()
        digest.update(len(content).to_bytes(8, "big"))
        digest.update(content)
    return digest.hexdigest()
