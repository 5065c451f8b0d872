"""Sends a run to an experiment tracker: each arm is a run there, with mean and interval over seeds by round."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from warmstart_sim.errors import WarmstartError, nearest
from warmstart_sim.results.files import to_yaml
from warmstart_sim.results.statistics import over_seeds
from warmstart_sim.results.tables import Run

COLUMNS = ("train_accuracy", "validation_accuracy", "test_accuracy", "train_seconds", "epochs", "steps", "samples_seen")


@dataclass(frozen=True)
class TrackedArm:
    """What a tracker shows of an arm with one combination of varied values.

    Attributes:
        name: The arm and its varied values.
        tags: The scenario's name, the arm, and each varied value.
        rounds: By round, the numbers to show: the mean of each column, and its `_low` and `_high` (95 % interval) where
            there are two seeds or more.
    """

    name: str
    tags: Mapping[str, str]
    rounds: Mapping[int, Mapping[str, float]]


def tracked_arms(run: Run) -> Iterator[TrackedArm]:
    """The arms of a run, in its order."""
    keys = ["strategy", *run.axes]
    columns = [column for column in COLUMNS if run.rounds[column].notna().any()]
    tables = [
        over_seeds(run.rounds, [*keys, "round"], column)
        .set_index([*keys, "round"])[["mean", "low", "high"]]
        .set_axis([column, f"{column}_low", f"{column}_high"], axis=1)
        for column in columns
    ]
    for values, rows in pd.concat(tables, axis=1).reset_index().groupby(keys, dropna=False, observed=True, sort=False):
        setting = {key: text for key, value in zip(keys, values, strict=True) if (text := _text(value))}
        numbers = rows.set_index("round").drop(columns=keys).to_dict("index")
        rounds = {
            int(str(index)): {str(name): float(each) for name, each in row.items() if pd.notna(each)}
            for index, row in numbers.items()
        }
        name = ", ".join([setting["strategy"], *(f"{key}={setting[key]}" for key in keys[1:] if key in setting)])
        yield TrackedArm(name, {"scenario": str(run.scenario["name"]), **setting}, rounds)


def _text(value: object) -> str:
    return "" if value is None or value != value else f"{value:g}" if isinstance(value, float) else str(value)


def track(run: Run, tracker: str, page: Path) -> None:
    """Sends all arms of a run to a tracker, with its resolved scenario and its report.

    Args:
        run: The run.
        tracker: "wandb", "mlflow" or "tensorboard"; the first two are configured as their own documentation says, for
            example offline by WANDB_MODE=offline.
        page: The report.
    """
    check_tracker(tracker)
    TRACKERS[tracker](run, page)


def check_tracker(tracker: str) -> None:
    """Checks that a tracker can be used.

    Raises:
        WarmstartError: There is no such tracker, or it is not installed.
    """
    if tracker not in TRACKERS:
        raise WarmstartError(f"--track {tracker}: expected one of {', '.join(TRACKERS)}{nearest(tracker, TRACKERS)}")
    if importlib.util.find_spec(tracker) is None:
        raise WarmstartError(f"--track {tracker}: it is not installed; pip install 'warmstart-sim[{tracker}]'")


def _to_wandb(run: Run, page: Path) -> None:
    import wandb

    for arm in tracked_arms(run):
        tags = [f"{key}={value}" for key, value in arm.tags.items()]
        with wandb.init(
            project="warmstart-sim", group=arm.tags["scenario"], name=arm.name, tags=tags, config=dict(run.scenario),
            dir=str(run.folder), reinit="finish_previous",
        ) as tracked:  # fmt: skip
            for index, numbers in arm.rounds.items():
                tracked.log(dict(numbers), step=index)
            tracked.log({"report": wandb.Html(page.read_text(encoding="utf-8"))})


def _to_mlflow(run: Run, page: Path) -> None:
    import mlflow

    mlflow.set_experiment(str(run.scenario["name"]))
    for arm in tracked_arms(run):
        with mlflow.start_run(run_name=arm.name, tags=dict(arm.tags)):
            for index, numbers in arm.rounds.items():
                mlflow.log_metrics(dict(numbers), step=index)
            mlflow.log_text(to_yaml(dict(run.scenario)), "scenario.yaml")
            mlflow.log_artifact(str(page))


def _to_tensorboard(run: Run, page: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    for arm in tracked_arms(run):
        folder = run.folder / "tensorboard" / "arms" / re.sub(r"[^A-Za-z0-9=._-]+", "_", arm.name)
        with SummaryWriter(str(folder), purge_step=0) as writer:
            writer.add_text("scenario", f"```yaml\n{to_yaml(dict(run.scenario))}```")
            writer.add_text("report", str(page.resolve()))
            for index, numbers in arm.rounds.items():
                for name, number in numbers.items():
                    writer.add_scalar(f"arm/{name}", number, index)


TRACKERS: dict[str, Callable[[Run, Path], None]] = {
    "wandb": _to_wandb,
    "mlflow": _to_mlflow,
    "tensorboard": _to_tensorboard,
}
