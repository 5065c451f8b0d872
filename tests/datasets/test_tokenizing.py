"""Tokens compared with an independent tokenizer in plain Python."""

import html
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstart_sim.datasets import tokenizing
from warmstart_sim.datasets.paths import cache_root
from warmstart_sim.datasets.tokenizing import (
    TextOptions,
    Texts,
    build_vocabulary,
    plain,
    read_text,
    text_dataset,
    tokenize,
)
from warmstart_sim.errors import DataError

OPTIONS = TextOptions(vocabulary=100, min_count=1, length=6, keep="start", lowercase=True, punctuation="drop")


def reference_words(text: str, options: TextOptions) -> list[str]:
    """Splits texts character by character, by Unicode category."""
    text = html.unescape(re.sub(r"</?[A-Za-z!][^<>]*>", " ", text)).replace("\u2019", "'")
    text = unicodedata.normalize("NFC", text.lower() if options.lowercase else text)
    words, word = [], ""
    for character, following in zip(text, [*text[1:], " "], strict=False):
        kind = unicodedata.category(character)[0]
        if kind in "LMN" or (character == "'" and word and unicodedata.category(following)[0] in "LMN"):
            word += character
            continue
        words.append(word)
        word = ""
        if kind in "PS" and options.punctuation == "keep":
            words.append(character)
    return [each for each in [*words, word] if each]


def reference_vocabulary(texts: list[str], options: TextOptions) -> list[str]:
    counts = Counter(word for text in texts for word in reference_words(text, options))
    frequent = [word for word, count in counts.items() if count >= options.min_count]
    return sorted(frequent, key=lambda word: (-counts[word], word))[: options.vocabulary]


def reference_tokens(texts: list[str], words: list[str], options: TextOptions) -> list[list[int]]:
    rows = []
    for text in texts:
        row = [words.index(word) + 2 if word in words else 1 for word in reference_words(text, options)]
        row = row[: options.length] if options.keep == "start" else row[-options.length :]
        rows.append(row + [0] * (options.length - len(row)))
    return rows


PIECES = st.one_of(
    st.sampled_from(["film", "Film", "good", "don't", "it’s", "<br />", "</i>", "&amp;", "&#39;", "<", ">", "&", "'"]),
    st.sampled_from(["[PAD]", "[UNK]", "<unknown>", "<padding>", "E\u0301", "é", "İ", "ς", "_", "...", "8/10", "#"]),
    st.sampled_from([" ", " ", " ", "\n", "\t", "\u0085", "\u00a0", "\u200b", ""]),
    # The library's Unicode version may be newer than Python's.
    st.text(st.characters(max_codepoint=0x2FFF, exclude_categories=["Cs", "Cn"]), max_size=4),
)
TEXT = st.lists(PIECES, max_size=12).map("".join)
SOME = st.builds(
    TextOptions,
    vocabulary=st.integers(1, 8),
    min_count=st.integers(1, 3),
    length=st.integers(1, 8),
    keep=st.sampled_from(["start", "end"]),
    lowercase=st.booleans(),
    punctuation=st.sampled_from(["drop", "keep"]),
)


@given(st.lists(TEXT, min_size=1, max_size=6), st.lists(TEXT, max_size=3), SOME)
def test_vocabulary_and_tokens_equal_a_plain_tokenizers(train, test, options):
    words = reference_vocabulary(train, options)
    if not words:
        with pytest.raises(DataError, match="the vocabulary is empty"):
            build_vocabulary("own", train, options)
        return
    assert build_vocabulary("own", train, options) == words
    assert tokenize(train + test, words, options).tolist() == reference_tokens(train + test, words, options)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Good.<br /><br />Bad", ["good", "bad"]),
        ('<a href="x">one</a><p>two<!-- no -->three', ["one", "two", "three"]),
        ("1 < 2 and 3 > 2 <3", ["1", "2", "and", "3", "2", "3"]),
        ("Tom &amp; Jerry &quot;here&quot; caf&eacute; &lt;b&gt;", ["tom", "jerry", "here", "café", "b"]),
        ("don't DON’T don&#39;t", ["don't"] * 3),
        ("'quoted' rock 'n' roll teachers' o'clock's", ["quoted", "rock", "n", "roll", "teachers", "o'clock's"]),
        ("well-made 8/10 a_b f**k", ["well", "made", "8", "10", "a", "b", "f", "k"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("Привет, 世界! नमस्ते", ["привет", "世界", "नमस्ते"]),
    ],
)
def test_what_counts_as_a_word(text, words):
    ordered = sorted(set(words))
    tokens = tokenize([text], ordered, replace(OPTIONS, length=len(words) + 1))
    assert [ordered[token - 2] for token in tokens[0, :-1]] == words
    assert tokens[0, -1] == 0


def test_kept_punctuation_marks_are_words_of_their_own():
    words = ["!", "$", "'", "-", "don't", "made", "well"]
    tokens = tokenize(["'Well-made'!! $ don't"], words, replace(OPTIONS, length=9, punctuation="keep"))
    assert [words[token - 2] for token in tokens[0]] == ["'", "well", "-", "made", "'", "!", "!", "$", "don't"]


def test_capitals_differ_without_lowercase():
    assert build_vocabulary("own", ["It it IT it"], replace(OPTIONS, lowercase=False)) == ["it", "IT", "It"]
    assert build_vocabulary("own", ["It it IT it"], OPTIONS) == ["it"]


def test_equal_counts_are_sorted_alphabetically_before_the_cut():
    texts = ["b a c b a c d e e e f"]
    assert build_vocabulary("own", texts, OPTIONS) == ["e", "a", "b", "c", "d", "f"]
    assert build_vocabulary("own", texts, replace(OPTIONS, vocabulary=3)) == ["e", "a", "b"]
    assert build_vocabulary("own", texts, replace(OPTIONS, min_count=2)) == ["e", "a", "b", "c"]


def test_reserved_names_in_a_text_are_ordinary_words():
    words = ["pad", "unk"]
    assert tokenize(["[PAD] [UNK] <unknown> x"], words, OPTIONS).tolist() == [[2, 3, 1, 0, 0, 0]]


def texts(*each: str) -> Texts:
    return Texts(each, np.arange(len(each), dtype=np.int64) % 2)


def test_the_vocabulary_comes_from_the_training_texts_only():
    dataset = text_dataset("own", texts("a b", "a"), texts("c b", "c"), 2, replace(OPTIONS, length=2))
    assert dataset.train.inputs.tolist() == [[2, 3], [2, 0]]
    assert dataset.test.inputs.tolist() == [[1, 3], [1, 0]]
    assert dataset.vocabulary_size == 4
    assert dataset.train.inputs.dtype == np.int64


@pytest.mark.parametrize(("keep", "kept"), [("start", [2, 3, 4]), ("end", [4, 5, 6])])
def test_long_texts_keep_start_or_end_and_short_ones_are_padded_at_the_end(keep, kept):
    tokens = tokenize(["a b c d e", "b"], list("abcde"), replace(OPTIONS, length=3, keep=keep))
    assert tokens.tolist() == [kept, [3, 0, 0]]


def test_texts_without_words_become_one_unknown_word_and_are_counted():
    dataset = text_dataset("own", texts("a", "", "?", " \n"), texts("a", "zzz", ":-)"), 2, OPTIONS)
    assert dataset.train.inputs[:, 0].tolist() == [2, 1, 1, 1]
    assert dataset.test.inputs[:, 0].tolist() == [2, 1, 1]
    assert not dataset.train.inputs[:, 1:].any()
    (note,) = dataset.notes
    assert "3 training texts, 1 test texts" in note
    assert text_dataset("own", texts("a"), texts("zzz"), 2, OPTIONS).notes == ()


@pytest.mark.parametrize("train", [("a b", "c"), ("...", ""), ()])
def test_an_empty_vocabulary_says_which_options_to_change(train):
    with pytest.raises(DataError, match=r"own: no word occurs min_count = 2 times.*`min_count`.*punctuation: keep"):
        build_vocabulary("own", train, replace(OPTIONS, min_count=2))
    assert list(cache_root().iterdir()) == []


TRAIN, TEST = texts("one two two", "three <b>", "..."), texts("two", "four", "-")


def test_a_second_load_tokenises_neither_training_nor_test_texts_and_is_equal(monkeypatch):
    first = text_dataset("own", TRAIN, TEST, 2, OPTIONS)
    for name in ("_tokenizer", "plain"):
        monkeypatch.setattr(tokenizing, name, None)
    again = text_dataset("own", TRAIN, TEST, 2, OPTIONS)
    for one, other in ((first.train, again.train), (first.test, again.test)):
        assert np.array_equal(one.inputs, other.inputs)
        assert other.inputs.dtype == np.int64
    assert (again.vocabulary_size, again.notes) == (first.vocabulary_size, first.notes)
    assert first.notes


@pytest.mark.parametrize(
    "changed",
    [
        {"vocabulary": 2},
        {"min_count": 2},
        {"length": 2},
        {"keep": "end"},
        {"lowercase": False},
        {"punctuation": "keep"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_option_is_part_of_the_cache_key(changed):
    train, test = texts("One two, two three", "one"), texts("two One! three")
    before = text_dataset("own", train, test, 2, replace(OPTIONS, length=3))
    options = replace(OPTIONS, **({"length": 3} | changed))
    cached = text_dataset("own", train, test, 2, options)
    assert cached.digest() != before.digest()
    words = reference_vocabulary(train.texts, options)
    assert cached.train.inputs.tolist() == reference_tokens(train.texts, words, options)
    assert cached.test.inputs.tolist() == reference_tokens(test.texts, words, options)


def test_texts_and_their_boundaries_are_part_of_the_cache_key():
    one, other = (build_vocabulary("own", each, OPTIONS) for each in (["ab", "c"], ["a", "bc"]))
    assert (one, other) == (["ab", "c"], ["a", "bc"])
    tokens = [tokenize(each, ["ab", "c"], OPTIONS)[:, 0].tolist() for each in (["ab", "c"], ["c", "ab"], ["ab", "d"])]
    assert tokens == [[2, 3], [3, 2], [2, 1]]


@pytest.mark.parametrize("damaged", ["vocabulary", "tokens"])
def test_a_truncated_cache_is_built_again(damaged):
    first = text_dataset("own", TRAIN, TEST, 2, OPTIONS)
    (stored,) = cache_root().glob(f"{damaged}-*")
    stored.write_bytes(stored.read_bytes()[:-1])
    assert np.array_equal(text_dataset("own", TRAIN, TEST, 2, OPTIONS).test.inputs, first.test.inputs)


@pytest.mark.parametrize(("count", "dtype"), [(253, np.uint8), (254, np.uint16), (70_000, np.uint32)])
def test_tokens_are_stored_in_the_smallest_integer_type(count, dtype):
    words = [f"w{number}" for number in range(count)]
    assert tokenize([words[-1]], words, OPTIONS)[0, 0] == count + 1
    (stored,) = cache_root().iterdir()
    assert np.load(stored).dtype == dtype


def test_threads_change_nothing(monkeypatch):
    generator = np.random.default_rng(0)
    many = [" ".join(f"w{word}" for word in generator.zipf(1.5, size=20) % 500) for _ in range(3000)]
    found = []
    for number, threads in enumerate(("true", "false")):
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", threads)
        monkeypatch.setenv("WARMSTART_SIM_CACHE", str(cache_root() / str(number)))
        words = build_vocabulary("own", many, OPTIONS)
        found.append((words, tokenize(many, words, OPTIONS).tolist()))
    assert found[0] == found[1]


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_tokenising_starts_no_threads_and_restores_the_environment():
    """After using threads, older versions of the library warn at every fork of the process."""
    code = (
        "import os; from warmstart_sim.datasets.tokenizing import TextOptions, tokenize, build_vocabulary;"
        f"options, texts, before = {OPTIONS!r}, ['a b'] * 3000, dict(os.environ);"
        "import tokenizers; threads = os.listdir('/proc/self/task');"
        "tokenize(texts, build_vocabulary('own', texts, options), options);"
        "assert os.listdir('/proc/self/task') == threads;"
        "assert dict(os.environ) == before"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TOKENIZERS_PARALLELISM"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_plain_keeps_case_without_lowercase():
    assert plain("<i>It’s</i> A", lowercase=False) == " It's  A"


def test_a_file_is_utf_8_with_or_without_a_byte_order_mark(tmp_path):
    file = tmp_path / "text.txt"
    for encoding in ("utf-8", "utf-8-sig"):
        file.write_text("café", encoding)
        assert read_text("own", file) == "café"
    file.write_bytes("café".encode("latin-1"))
    with pytest.raises(DataError, match=r"own: .*text\.txt is not UTF-8 \(.* at byte 3\)"):
        read_text("own", file)
