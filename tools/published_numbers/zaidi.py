"""The numbers of Zaidi et al. (2022), "When Does Re-initialization Work?", from the paper's text.

    python tools/published_numbers/zaidi.py PAPER_TEXT > warmstart_sim/published/zaidi.csv

The conversion to text lost headings, and gave check marks as "1" or "/". What that leaves open is in the notes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from published_number import PublishedNumber, print_csv, stated

SETTINGS = {"Ø": "none", "D": "D", "DC": "DC", "DCW": "DCW"}

STANDARD = "strategy=standard"
BORN_AGAIN = "strategy=self_distillation"
SGDR = "strategy=sgdr"
LAYERWISE = ["strategy=layerwise", "strategy=layerwise_distilled"]
SHRINK_PERTURB = ["strategy=shrink_perturb", "strategy=shrink_perturb_distilled"]

CIFAR10 = "data.name=cifar10; model.name=resnet18"
CIFAR100 = "data.name=cifar100; model.name=resnet18"
TINY = "data.name=tiny_imagenet; model.name=preact_resnet18"
IMAGENET = "data.name=imagenet; model.name=resnet18"

# Table: its row here, what it was measured on, and what its columns are.
ACCURACY_TABLES = {
    1: ("C-T1", CIFAR10, [STANDARD, BORN_AGAIN, *LAYERWISE, *SHRINK_PERTURB]),
    2: ("C-T2", CIFAR100, [STANDARD, BORN_AGAIN, SGDR, *LAYERWISE, *SHRINK_PERTURB]),
    3: ("C-T3", TINY, [STANDARD, *SHRINK_PERTURB]),
}
DISTILLATION_UNSAID = "whether with or without distillation is not said"
LOST_HEADING = (
    "the column's heading is lost in the text; it is the column of self-distillation by the order of Table 1 and by "
    "section 5.2"
)


def plain(latex: str) -> str:
    """The text of a cell without LaTeX, HTML and spaces, such as 75.4±0.3."""
    return re.sub(r"\$|\\!|</?b>|\s", "", latex.replace(r"\pm", "±"))


def accuracy_table(text: str, table: int) -> Iterator[PublishedNumber]:
    """Tables 1 to 3: a row for each setting, a column for each method, in each cell a mean ± a spread."""
    row, trained, columns = ACCURACY_TABLES[table]
    for line in text.partition(f"\nTable {table}: ")[2].splitlines():
        name, *cells = line.rstrip("\t").split("\t")
        if name not in SETTINGS:
            continue
        for column, cell in zip(columns, cells[3:], strict=True):  # before them, the check marks of D, C and W
            if cell == "N/A":
                continue
            value, spread = plain(cell).split("±")
            yield PublishedNumber(
                row, f"{trained}; setting={SETTINGS[name]}; {column}", "test_accuracy", value, spread, "unknown",
                where=f"Table {table}", note=LOST_HEADING if (table, column) == (2, BORN_AGAIN) else "",
            )  # fmt: skip
        if name == "DCW":
            break


def imagenet_table(text: str) -> Iterator[PublishedNumber]:
    """Table 4, whose two rows stand in one line."""
    match = re.search(r"\nCW DCW\t.*\t([\d.]+) ([\d.]+)\t([\d.]+) ([\d.]+)\n", text)
    assert match is not None
    order = "both rows of the table stand in one line of the text; Appendix A.1 confirms the order"
    arms = [(STANDARD, order)] * 2 + [("strategy=shrink_perturb", f"{order}; {DISTILLATION_UNSAID}")] * 2
    for (arm, note), setting, value in zip(arms, ["CW", "DCW"] * 2, match.groups(), strict=True):
        yield PublishedNumber(
            "C-T4", f"{IMAGENET}; setting={setting}; {arm}", "test_accuracy", value, where="Table 4", note=note
        )


# The first settings of Tables 5 and 6, in this order.
GENERAL = [
    "total_epochs", "stages", "training.batch_size", "training.optimizer.momentum", "training.optimizer.lr",
    "training.optimizer.weight_decay", "distillation_strength",
]  # fmt: skip
LOST_LABEL = "Table 5's labels are lost in the text; read by the order of Table 6"
OTHER_BUDGET = "Table 6's stages sum to 200 epochs, beside a budget of 500"
LOST_STAGES = f"the number of stages is lost before it; {LOST_LABEL}"
NO_TWENTY = "a pair (K, M) of section 3.3, label lost; no pair gives the T = 20 of that section (K = 5, M = 4)"


def grids(text: str) -> Iterator[PublishedNumber]:
    """Tables 5 and 6: the settings that were tried, a value a row; a setting that was not tuned is a grid of one."""
    table_5, table_6 = text[text.rindex(r"$\begin{array}{c} 200") :].split("\nTable 5: ")

    def grid(table: int, hyperparameter: str, values: list[str], note: str) -> Iterator[PublishedNumber]:
        data = "" if table == 5 else "data.name=tiny_imagenet; "
        for value in values:
            condition = f"{data}hyperparameter={hyperparameter}"
            yield PublishedNumber(f"C-T{table}", condition, "grid", value, unit="", where=f"Table {table}", note=note)

    def general(table: int, cells: list[str], note: str) -> Iterator[PublishedNumber]:
        for name, cell in zip(GENERAL, cells, strict=True):
            if name != "stages":
                yield from grid(table, name, re.findall(r"[\d.]+", cell), note)
                continue
            for stages, epochs in re.findall(r"(\d*) ?\\times (\d+)", cell):
                if stages:
                    yield from grid(table, f"stages; epochs_per_stage={epochs}", [stages], note or OTHER_BUDGET)
                else:
                    yield from grid(table, "epochs_per_stage", [epochs], LOST_STAGES)

    def data(table: int, lines: str, note: str) -> Iterator[PublishedNumber]:
        for name, symbol in (("mean", r"\mu"), ("std", r"\sigma")):
            channels = re.search(re.escape(symbol) + r" = \((.*?)\)", lines)
            assert channels is not None
            for channel, value in enumerate(channels[1].split(", ")):
                yield from grid(table, f"normalization_{name}; channel={channel}", [value], note)
        yield from grid(table, "crop_padding", re.findall(r"padding (\d) pixels", lines), note)

    yield from general(5, table_5.partition(r"\end{array}")[0].partition("}{c} ")[2].split(r" \\ "), LOST_LABEL)
    yield from data(5, table_5, LOST_LABEL)
    yield from grid(5, "lambda", re.findall(r"\n([\d.]+)\t", table_5), LOST_LABEL)
    yield from grid(5, "sigma", re.findall(r"\n([\d.]+) tion\t", table_5), f"gamma in the paper; {LOST_LABEL}")
    for blocks, repeats in re.findall(r"\((\d+),(\d+)\)", table_5):
        yield from grid(5, f"blocks; repeats_per_block={repeats}", [blocks], NO_TWENTY)

    values = [line.split("\t")[1] for line in table_6.splitlines() if line.count("\t") == 5]
    yield from general(6, values[1:8], "")
    yield from data(6, table_6, "")
    yield from grid(6, "lambda", re.findall(r"rwise\) ([\d.]+)", table_6), "gamma's number is lost in the text")


MARGIN = "by a margin of 1-2 percentage points in both cases"
UPTO = "by upto 5 percentage points on CIFAR-10 and 8 percentage points on CIFAR-100"
BEST_STAGES = "in the range 5-20, is most beneficial for the re-initialization methods"
ANY_STAGES = "any number of stages in the range shown (2-25) improves upon standard training"
LAYERWISE_STAGES = r"the number of stages is tied to the architecture itself, and  $T \in \{2, 5, 10, 20\}$"
POINTS = "percentage points"
ON_CIFAR = "model.name=resnet18; setting=none"
AHEAD_OF_LAYERWISE = "setting=none; strategy=shrink_perturb; versus=layerwise"
AHEAD_OF_STANDARD = f"{SHRINK_PERTURB[1]}; versus=standard"
PROSE = [
    *((MARGIN, row, f"{trained}; {AHEAD_OF_LAYERWISE}", "test_accuracy_gain", end, POINTS,
       "section 4.2, first paragraph", f'from "1-2"; {DISTILLATION_UNSAID}')
      for row, trained in (("C-T1", CIFAR10), ("C-T2", CIFAR100)) for end in ("1", "2")),
    (UPTO, "C-T1", f"{CIFAR10}; {AHEAD_OF_STANDARD}", "test_accuracy_gain", "5", POINTS,
     "section 5.1, first paragraph", '"upto": the largest of settings none, D and DC'),
    (UPTO, "C-T2", f"{CIFAR100}; {AHEAD_OF_STANDARD}", "test_accuracy_gain", "8", POINTS,
     "section 5.1, first paragraph", '"upto": the largest of settings none, D and DC'),
    ("on average 10 times smaller for re-initialization than standard training", "C-F2",
     f"{ON_CIFAR}; strategy=shrink_perturb; versus=standard", "learning_rate_ratio", "10", "times smaller",
     "Figure 2, caption", "of the tuned learning rates, averaged over CIFAR-10 and CIFAR-100"),
    ("already outperforms standard training by epoch 50", "C-F2",
     f"{ON_CIFAR}; strategy=shrink_perturb; versus=standard", "ahead_by_epoch", "50", "epochs",
     "section 4.2, second paragraph", "with 10 stages"),
    ("All models shown in this plot achieved approximately 100% training accuracy", "C-F2", ON_CIFAR,
     "train_accuracy", "100", "percent", "section 4.2, second paragraph", '"approximately"'),
    ("with learning rate 0.005 and weight decay 0, performance of standard training degrades to 67.6%", "C-F4",
     f"{CIFAR100}; training.optimizer.lr=0.005; training.optimizer.weight_decay=0; setting=DCW; {STANDARD}",
     "test_accuracy", "67.6", "percent", "section 5.4", ""),
    ("performance of Shrink & Perturb remains above 73% throughout", "C-F4",
     f"{CIFAR100}; setting=DCW; strategy=shrink_perturb", "test_accuracy", "73", "percent", "section 5.4",
     f'"above", over the whole grid of learning rates and weight decays, with 5 stages; {DISTILLATION_UNSAID}'),
    (BEST_STAGES, "C-F5", ON_CIFAR, "best_stages", "5", "stages", "section 5.5", 'from "5-20", of all methods'),
    (BEST_STAGES, "C-F5", ON_CIFAR, "best_stages", "20", "stages", "section 5.5", 'from "5-20", of all methods'),
    (ANY_STAGES, "C-F5", f"{ON_CIFAR}; strategy=shrink_perturb; versus=standard", "stages_ahead", "2", "stages",
     "section 5.5", 'from "2-25"'),
    (ANY_STAGES, "C-F5", f"{ON_CIFAR}; strategy=shrink_perturb; versus=standard", "stages_ahead", "25", "stages",
     "section 5.5", 'from "2-25"'),
    *((LAYERWISE_STAGES, "C-F5", "model.name=resnet18; strategy=layerwise; hyperparameter=stages", "grid", stages, "",
       "Figure 5, caption", "as in section 3.3; all are ahead of standard in setting none (section 5.5)")
      for stages in ("2", "5", "10", "20")),
    ("improves upon standard training by over 15 percentage points in test accuracy when we have 40% label noise",
     "C-F6", f"{TINY}; data.label_noise=0.4; setting=DCW; {AHEAD_OF_STANDARD}", "test_accuracy_gain", "15", POINTS,
     "section 6, second paragraph", '"over"'),
    ("in all cases the models achieve close to 100% accuracy", "C-F10", "", "train_accuracy", "100", "percent",
     "Figure 10, caption", '"close to", of all models of the figure'),
]  # fmt: skip


def numbers(text: str) -> Iterator[PublishedNumber]:
    """All numbers, table by table, then those of sentences and captions."""
    for table in ACCURACY_TABLES:
        yield from accuracy_table(text, table)
    yield from imagenet_table(text)
    yield from grids(text)
    yield from stated(text, PROSE)


if __name__ == "__main__":
    print_csv(numbers)
