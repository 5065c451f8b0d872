"""Asks for advice on several splits of a data set, plays on with other seeds, and compares with what was stated.

    python tools/replay_advice.py digits mlp --splits 10 --minutes 10 --out runs/replays

On each split three tenths of the samples have not arrived when advice is asked. The replay plays on: random init and
the setting that was checked train in the same rounds and in later ones, with other seeds, and are compared in the later
ones. Writes replays.csv, a row for each split, and prints how many paired differences lie within the stated intervals.
The same command goes on where it stopped. On digits with an MLP, a split takes the minutes of its advice and about two
more.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from warmstart_sim.advise import Outcome, advise
from warmstart_sim.advise.halving import REFERENCE, compare, cost
from warmstart_sim.advise.question import Question, make_question
from warmstart_sim.datasets.loading import load
from warmstart_sim.datasets.paths import data_root
from warmstart_sim.execution.launch import run_scenario
from warmstart_sim.execution.options import RunOptions
from warmstart_sim.results.tables import load as load_run

ARRIVED = 0.7  # of the training samples, when advice is asked
REPLAY_SEED = 5000  # the first; advice counts from 0 and from 1000


def replay(data: str, model: str, split: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """A row of replays.csv."""
    folder = arguments.out / f"split{split}"
    question = make_question(data, model, set=arguments.set, seed=split)
    past = {"of": dict(question.data), "order": split}
    count = len(load("past", {**past, "samples": None, "held_out": None}, data_root(arguments.data_root), 0).train)
    arrived = past | {"samples": int(ARRIVED * count)} | dict(question.data_settings)
    settings = [each for each in arguments.set if not each.startswith("data.")]
    outcome = advise(
        "past", model, minutes=arguments.minutes, margin=arguments.margin, rounds=arguments.rounds, arrival="given",
        set=[*settings, *(f"data.{key}={json.dumps(value)}" for key, value in arrived.items())],
        out=folder / "advice", workers=arguments.workers, data_root=arguments.data_root, say=print,
    )  # fmt: skip
    row = {"split": split, "start": outcome.advice.start, "lambda": outcome.advice.lam, "sigma": outcome.advice.sigma}
    if outcome.advice.row is None:
        return {**row, "checked": "", "within": None}
    return {**row, **_replayed(question, outcome, count, folder, arguments)}


def _replayed(
    question: Question, outcome: Outcome, count: int, folder: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    """What the advice stated, and what the replay shows."""
    plan, setting, stated = outcome.plan, outcome.advice.checked, outcome.advice.row
    assert plan is not None
    assert setting is not None
    assert stated is not None
    later = plan.rounds - plan.first_later
    rounds = min(plan.rounds + later, count // plan.chunk)
    raw = question.scenario(
        "replay", question.past(), {REFERENCE: {}, setting.label: setting.arm},
        range(REPLAY_SEED, REPLAY_SEED + arguments.seeds), chunk=plan.chunk, rounds=rounds,
    )  # fmt: skip
    name = folder / f"replay_{plan.shape}"
    options = RunOptions(out=name, workers=arguments.workers or 1, data_root=arguments.data_root, quiet=True)
    run_scenario(raw, str(name), options).raise_failures()
    table = compare(load_run(name).rounds, plan.rounds)
    found = next(row for row in table.to_dict("records") if row["strategy"] == setting.label)
    return {
        "checked": setting.label,
        **{f"stated_{key}": stated[key] for key in ("difference", "difference_low", "difference_high")},
        "replayed_difference": found["difference"],
        "replayed_low": found["difference_low"],
        "replayed_high": found["difference_high"],
        "stated_share": cost(dict(stated)),
        "replayed_share": cost(found),
        "within": stated["difference_low"] <= found["difference"] <= stated["difference_high"],
    }


def main(words: Sequence[str] | None = None) -> pd.DataFrame:
    """Replays all splits, and writes and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", help="as for `advise`")
    parser.add_argument("model", help="a model")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--first-split", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each advice")
    parser.add_argument("--margin", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--seeds", type=int, default=20, help="of each replay")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in `advise`")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--data-root", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/replays"))
    arguments = parser.parse_args(words)
    rows = []
    for split in range(arguments.first_split, arguments.first_split + arguments.splits):
        rows.append(replay(arguments.data, arguments.model, split, arguments))
        table = pd.DataFrame(rows)
        table.to_csv(arguments.out / "replays.csv", index=False)
        print(table.to_string(index=False, float_format=lambda number: f"{number:.4f}"))
    known = table["within"].dropna()
    print(f"{int(known.sum())} of {len(known)} paired differences lie within the stated intervals")
    return table


if __name__ == "__main__":
    main()
