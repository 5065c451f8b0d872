"""The columns that every run's tables have; probes add others. The guide says what each column holds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

IDENTITY_COLUMNS = ("scenario", "strategy", "seed")  # of every row; the varied keys come after them
MACHINE_COLUMNS = ("device_name", "host", "commit", "started", "ended", "peak_memory")
ROUND_COLUMNS = (
    "round", "shared", "dataset", "train_samples", "new_samples", "epochs", "steps", "samples_seen", "flops",
    "converged", "status", "best_epoch", "cell_complete", "copied_from", "train_accuracy", "train_loss",
    "validation_accuracy", "validation_loss", "test_accuracy", "test_loss", "train_seconds", "criterion_seconds",
    "evaluation_seconds", "setup_seconds", "estimated_isolated_seconds", "timing", "threads", "device",
    *MACHINE_COLUMNS,
)  # fmt: skip
TEXT_COLUMNS = (  # without numbers that a figure could draw
    "scenario", "strategy", "shared", "selected", "dataset", "converged", "status", "cell_complete", "copied_from",
    "timing", "device", *(name for name in MACHINE_COLUMNS if name != "peak_memory"),
)  # fmt: skip
EPOCH_COLUMNS = (
    "round", "shared", "epoch", "steps", "learning_rate", "running_train_accuracy", "running_train_loss",
    "train_accuracy", "validation_accuracy", "test_accuracy", "train_seconds",
)  # fmt: skip
STATISTICS = ("mean", "std", "low", "high", "p", "bound", "low_holm", "high_holm", "p_holm", "reference")
SUMMED = (
    "final_accuracy", "curve_accuracy", "compared_seconds", "first_phase_seconds", "samples_seen", "flops",
    "time_ratio", "samples_ratio", "flops_ratio", "log_time_ratio", "log_samples_ratio", "log_flops_ratio",
    "difference", "curve_difference", "timing", "first_phase_timing", "device_name", "converged_share",
)  # fmt: skip
COUNTS = ("seeds", "pairs", "timed_pairs", "last_round", "unfinished", "diverged", "gave_up")
# Columns of the tables and of what `results.tables` makes of them; a varied key cannot have their names.
RESERVED_COLUMNS = {
    *IDENTITY_COLUMNS, *ROUND_COLUMNS, *EPOCH_COLUMNS, "accuracy", "state", "metric", "selected", *COUNTS, *STATISTICS,
    "difference_bound_std", *SUMMED, *(f"{value}_{each}" for value in SUMMED for each in STATISTICS),
}  # fmt: skip
SECONDS = ("train_seconds", "criterion_seconds", "evaluation_seconds", "setup_seconds")
# Tables of earlier versions lack these.
LATER_COLUMNS = ("estimated_isolated_seconds", "best_epoch", "cell_complete", "copied_from", *MACHINE_COLUMNS)
# What differs between two runs that give the same numbers.
MEASURED = (*SECONDS, "estimated_isolated_seconds", "probe_seconds", *MACHINE_COLUMNS)
Row = dict[str, Any]


def column_of(key: str, arms: Iterable[str] = ()) -> str:
    """The column of a varied key. It has no dots, so that it needs no backticks in pandas's `query`.

    >>> column_of("stream.fraction"), column_of("strategies.mine.lambda", ["random_init", "mine"])
    ('stream_fraction', 'lambda')
    """
    for arm in arms:
        key = key.removeprefix(f"strategies.{arm}.")
    return key.replace(".", "_")


def column_pattern(declared: str) -> str:
    """A column as a probe declares it, with words in braces for any text, as a pattern of `fnmatch`.

    >>> column_pattern("weight_norm_{block}")
    'weight_norm_*'
    """
    return re.sub(r"\{\w+\}", "*", declared)


def plain(value: Any) -> str:
    """A value from a table, from YAML or from a sentence in one form, so that 0.10, 1e-1 and "0.1" are equal.

    >>> plain("0.10"), plain(1e-1), plain("cifar10"), plain(True)
    ('0.1', '0.1', 'cifar10', 'true')
    """
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value)).lower()
    try:
        return f"{float(value):.12g}"
    except (TypeError, ValueError):
        return str(value)
