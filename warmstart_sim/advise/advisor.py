"""`advise`: from a question to the answer, its code, its savings and its page."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from warmstart_sim import report
from warmstart_sim import scenario as scenarios
from warmstart_sim.advise import savings, snippets
from warmstart_sim.advise.answer import Advice, advise_from_check, not_checked, setting_words
from warmstart_sim.advise.halving import SETTINGS, Setting
from warmstart_sim.advise.plan import Pace, Plan, make_plan, shapes
from warmstart_sim.advise.play import Choice, Player, check, checked, choose, measure_pace
from warmstart_sim.advise.question import make_question
from warmstart_sim.datasets.paths import data_root as find_data_root
from warmstart_sim.errors import WarmstartError
from warmstart_sim.execution.launch import choose_device
from warmstart_sim.execution.options import RunOptions
from warmstart_sim.report.wording import duration
from warmstart_sim.results.environment import usable_cores
from warmstart_sim.results.files import write_text
from warmstart_sim.results.store import MARKER, RunFolder
from warmstart_sim.training.settings import Training
from warmstart_sim.types import Dataset

TRIED_SHOWN = 3  # settings in a line
WORTH_WORKERS = 10  # minutes; in a smaller budget, starting processes takes too much of it


@dataclass(frozen=True)
class Outcome:
    """What `advise` has found and written.

    Attributes:
        folder: Its files: advice.json, report.html, start_pytorch.py, start_avalanche.py, costs.json, and the runs.
        advice: The answer.
        plan: What was played; None if it did not come to that.
        savings: A sentence on what it saves in a year; empty if nothing, or if it was not asked for.
        code: The script of plain PyTorch; empty without a check.
        interrupted: Whether Ctrl-C ended it before it was complete.
    """

    folder: Path
    advice: Advice
    plan: Plan | None = None
    savings: str = ""
    code: str = ""
    interrupted: bool = False


def advise(
    data: str,
    model: str,
    *,
    minutes: float = 30.0,
    margin: float = 1.0,
    rounds: int | None = None,
    chunk: int | None = None,
    arrival: str | None = None,
    training: Path | None = None,
    every: str | None = None,
    set: Iterable[str] = (),
    seed: int = 0,
    out: Path | None = None,
    device: str = "auto",
    data_root: Path | None = None,
    workers: int | None = None,
    fresh: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Says how the next training run on data should start, by playing their past.

    The data arrive in rounds, in their order of arrival. Starts compete in the early rounds; the one that wins is
    checked against random init in the later rounds, with other seeds and other test samples. An interrupt (Ctrl-C) ends
    it with what is known so far; the same call goes on.

    Args:
        data: A folder of images or texts, a table of texts, a .npz file, a bundled name, or "module:function".
        model: A bundled name, or "module:function".
        minutes: The budget.
        margin: The loss of accuracy that does not matter, in points.
        rounds: In how many rounds the data arrive. Default: as many as fit.
        chunk: How many samples arrive with each round.
        arrival: A column, an array or "mtime" that orders the samples, or "given" for the order of the data set.
            Default: a random order.
        training: A YAML file with the sections `training` and `parts` of a scenario file.
        every: How often a run is trained, such as "week", for the savings.
        set: More settings, each "KEY=VALUE".
        seed: Seeds the random order, and the split of data without test samples of their own.
        out: The folder. Default runs/advise-NAME.
        device: As in `run`.
        data_root: As in `run`.
        workers: As in `run`.
        fresh: Delete what the folder holds, and begin again.
        say: Called with lines on what is done.

    Raises:
        WarmstartError: Something is wrong with the data, the model, the settings or the budget.
    """
    for name, value in (("--minutes", minutes), ("--margin", margin)):
        if not 0 < value < float("inf"):
            raise WarmstartError(f"{name} {value:g}: expected a number above 0")
    if every is not None:
        savings.times_a_year(every)
    question = make_question(data, model, arrival=arrival, training=training, set=set, seed=seed)
    folder = Path(out or f"runs/advise-{question.name}")
    device = choose_device(device)
    if workers is None:
        workers = 1 if device.startswith("cuda") or minutes < WORTH_WORKERS else usable_cores()
    player = Player(
        question, folder, RunOptions(device=device, workers=workers, data_root=data_root), find_data_root(data_root),
        minutes, say,
    )  # fmt: skip
    _, (cell, *_) = scenarios.plan(
        question.scenario("question", question.past(), {"random_init": {}}, [0], chunk=1, rounds=1), "advise"
    )
    dataset = player.dataset()
    list(shapes(len(dataset.train), rounds, chunk))  # raises where there are too few samples
    if fresh:
        _delete(folder)
    plan: Plan | None = None
    choice: Choice | None = None
    interrupted = False
    try:
        plan = _plan(player, len(dataset.train), rounds, chunk)
        say(_describe(plan, len(dataset.train), player))
        choice = choose(player, plan, margin / 100)
        if choice.setting and player.seconds_left > 0:
            say(f"Checking {setting_words(choice.setting)} against random init in the later rounds.")
            check(player, plan, choice.setting)
    except KeyboardInterrupt:
        interrupted = player.stopped = True
        if plan and choice is None:
            choice = choose(player, plan, margin / 100)  # as far as it is
    outcome = _finish(player, plan, choice, dataset, cell.arm.training.in_round(1), margin / 100, every)
    return replace(outcome, interrupted=interrupted)


def _plan(player: Player, count: int, rounds: int | None, chunk: int | None) -> Plan:
    """The plan; that of an earlier call with the same budget goes on."""
    path = player.folder / "plan.json"
    asked = {"minutes": player.minutes, "rounds": rounds, "chunk": chunk, "count": count}
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if stored.get("asked") == asked:
        return Plan(**{**stored["plan"], "rungs": tuple(map(tuple, stored["plan"]["rungs"]))})
    samples, in_rounds = next(shapes(count, rounds, chunk))
    if "pace" in stored and stored["asked"]["count"] == count:
        pace = Pace(**stored["pace"])
    else:
        pace = measure_pace(player, samples // in_rounds)
    plan = make_plan(count, pace, 60 * player.minutes, player.options.workers or 1, rounds, chunk)
    write_text(path, json.dumps({"asked": asked, "pace": asdict(pace), "plan": asdict(plan)}, indent=1))
    return plan


def _delete(folder: Path) -> None:
    """Removes what an earlier call has left; nothing in a folder that no call has made."""
    if not (folder / "plan.json").exists() and not any(folder.glob(f"*/{MARKER}")):
        return
    for run in folder.glob(f"*/{MARKER}"):
        shutil.rmtree(run.parent)
    for name in ("plan.json", "advice.json", "report.html", "costs.json", "start_pytorch.py", "start_avalanche.py"):
        (folder / name).unlink(missing_ok=True)


def _describe(plan: Plan, count: int, player: Player) -> str:
    settings = plan.rungs[0][0]
    of_all = "" if plan.samples > count - plan.rounds else f" of {count:,}"
    return (
        f"{plan.samples:,} samples{of_all} arrive in {plan.rounds} rounds of {plan.chunk:,}; {settings} starts beside "
        f"random init; at most about {duration(min(plan.seconds, 60 * player.minutes))}."
    )


def _left_out(plan: Plan, count: int, choice: Choice) -> list[str]:
    """What the budget left out."""
    lines = []
    if plan.samples <= count - plan.rounds:
        lines.append(f"Left out: {count - plan.samples:,} of the {count:,} training samples.")
    settings = plan.rungs[0][0]
    if settings < len(SETTINGS):
        others = ", ".join(setting_words(each) for each in SETTINGS[settings : settings + TRIED_SHOWN])
        more = len(SETTINGS) - settings - TRIED_SHOWN
        lines.append(f"Left out: {others}{f' and {more} more settings' if more > 0 else ''}.")
    if choice.cut_short:
        lines.append("Time was over before all stages of choosing were complete.")
    return lines


def _tried(choice: Choice) -> list[str]:
    by_seeds: dict[int, list[str]] = {}
    words = {each.label: setting_words(each) for each in SETTINGS}
    for label, seeds in choice.tried.items():
        by_seeds.setdefault(seeds, []).append(words[label])
    return [
        f"Compared with random init in {seeds} seeds: {', '.join(labels)}."
        for seeds, labels in sorted(by_seeds.items())
    ]


def _finish(
    player: Player,
    plan: Plan | None,
    choice: Choice | None,
    dataset: Dataset,
    training: Training,
    margin: float,
    every: str | None,
) -> Outcome:
    """Writes the answer and all that goes with it, from what the runs have shown so far."""
    setting: Setting | None = choice.setting if choice else None
    lines = tuple(_tried(choice) + _left_out(plan, len(dataset.train), choice)) if plan and choice else ()
    table = checked(player, plan, setting) if plan and setting else None
    if plan is None or setting is None or table is None:
        advice = not_checked(setting, lines, margin)
        write_text(player.folder / "advice.json", json.dumps(advice.to_dict(), indent=1, ensure_ascii=False))
        return Outcome(player.folder, advice, plan)
    advice = advise_from_check(table, setting, plan, margin, len(dataset.test), lines)
    path = player.folder / f"check_{plan.shape}"
    run = player.tables(path.name)
    assert run is not None
    year = savings.savings(advice, run.rounds, every) if every else ""
    last = _last_weights(path, advice.start)
    code = snippets.pytorch(player.question, advice, dataset, training, last)
    files = {
        "advice.json": json.dumps(advice.to_dict(), indent=1, ensure_ascii=False),
        "costs.json": json.dumps(savings.cost_table(run.rounds), indent=1),
        "start_pytorch.py": code,
        "start_avalanche.py": snippets.avalanche(player.question, advice, dataset, training, last),
    }
    for name, text in files.items():
        write_text(player.folder / name, text)
    _write_page(player.folder, path, [*advice.sentences, *filter(None, [year])], [*lines], code, margin)
    return Outcome(player.folder, advice, plan, year, code)


def _last_weights(path: Path, start: str) -> Path:
    """The weights with which a cell of the check ended."""
    found = sorted(path.glob(f"cells/{start}*/weights.pt")) or sorted(path.glob("cells/*/weights.pt"))
    return found[0]


def _write_page(
    folder: Path, check_folder: Path, answer: list[str], tried: list[str], code: str, margin: float
) -> None:
    """Writes the check's report with the answer at its top, here and in the check's folder."""
    RunFolder(check_folder).note(advice={"answer": answer, "tried": tried, "code": code})
    page = report.write(check_folder, margin).read_text(encoding="utf-8")
    of_check = re.sub(r'href="(?!#|[a-z]+:)', f'href="{check_folder.name}/', page)  # the files that the page links to
    write_text(folder / "report.html", of_check)
