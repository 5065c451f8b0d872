"""What `figures:` of a scenario may say: one model for each kind of figure.

The check of a scenario validates with them, and the report reads the figures of the stored scenario with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field

from warmstart_sim.registry import OPTION_RULES

Value = bool | int | float | str
Names = str | Annotated[tuple[str, ...], Field(min_length=1)]
TableName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
RoundIndex = Annotated[int, Field(ge=0)]
LogAxes = tuple[Literal["x", "y"], ...]


class Figure(BaseModel):
    """The keys that all kinds of figures have.

    Attributes:
        title: The heading. Default: made of the columns' names.
        caption: Sentences in front of those that the report adds on means, intervals and seconds.
        where: Which rows are drawn: a varied key or another column, and its value or a list of values. Rows without a
            value there are kept, such as those of arms that lack the key. Default all.
    """

    model_config = OPTION_RULES
    kind: str
    title: str = ""
    caption: str = ""
    where: dict[str, Value | tuple[Value, ...]] = {}

    measured: ClassVar[tuple[str, ...]] = ()  # the keys that name columns of numbers
    grouped: ClassVar[tuple[str, ...]] = ()  # the keys that name varied keys and other columns

    def names(self, keys: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        """The names of columns under these keys, each after its key."""
        yield from ((key, name) for key in keys for name in listed(getattr(self, key) or ()))


def of_arm(name: str) -> tuple[str, str]:
    """The column and the arm that a name of the form "COLUMN of ARM" names; no arm if it is a column alone.

    >>> of_arm("test_loss of baseline"), of_arm("test_loss")
    (('test_loss', 'baseline'), ('test_loss', ''))
    """
    column, _, arm = name.partition(" of ")
    return column, arm


def listed(names: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several as a tuple.

    >>> listed("a"), listed(["a", "b"])
    (('a',), ('a', 'b'))
    """
    return (names,) if isinstance(names, str) else tuple(names)


class Curves(Figure):
    """Means over seeds while a cell trains: a line for each arm and value of its own varied keys.

    Attributes:
        x: "train_samples" (default), "round", or "epoch", which draws the rounds one after another.
        y: A column of rounds.csv, or with epochs of epochs.csv; or several. Default: the run's metric.
        rounds: The rounds that are drawn, counted from 0. Default: all; with epochs, at most three, evenly spread.
        panels: The keys whose values make panels; others make lines: varied keys, "strategy", and "y" for several
            columns. Default: "y", and the varied keys that all arms have.
        log: The logarithmic axes: x, y or both.
    """

    kind: Literal["curves"]
    x: Literal["train_samples", "round", "epoch"] = "train_samples"
    y: Names = ()
    rounds: Annotated[tuple[RoundIndex, ...], Field(min_length=1)] | None = None
    panels: tuple[str, ...] | None = None
    log: LogAxes = ()

    measured: ClassVar[tuple[str, ...]] = ("y",)
    grouped: ClassVar[tuple[str, ...]] = ("panels", "where")


class Against(Figure):
    """Means over seeds against a varied number or another column, with intervals: a line for each arm.

    Attributes:
        x: A varied key, or a column of numbers.
        y: A column, or several side by side. Default: the run's metric. Or with a star, such as margin_q*: all columns
            that have a number in its place; x is then a name for that number.
        table: An analysis, whose table is drawn. Default: the rounds, one row for each complete cell.
        round: Take columns from this round. Default: the last, with seconds, epochs, steps, samples and FLOPs summed.
        panels: The keys whose values make panels; others make lines. Default: the varied keys that all arms have.
        lines: Further columns whose values make lines, such as a policy in the table of an analysis.
        log: The logarithmic axes: x, y or both. Default: x, if its values are wide apart.
    """

    kind: Literal["against"]
    x: str
    y: Names = ()
    table: TableName | None = None
    round: RoundIndex | None = None
    panels: tuple[str, ...] | None = None
    lines: Names = ()
    log: LogAxes = ()

    measured: ClassVar[tuple[str, ...]] = ("x", "y")
    grouped: ClassVar[tuple[str, ...]] = ("panels", "lines", "where")

    @property
    def starred(self) -> str:
        """`y` if it has a star, else empty."""
        return self.y if isinstance(self.y, str) and "*" in self.y else ""

    def names(self, keys: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        """As of every figure, but not x where it is no column."""
        yield from (each for each in super().names(keys) if not (self.starred and each[0] == "x"))


class Scatter(Figure):
    """One point for each cell: two columns against each other. A cloud of settings is a scatter, too.

    Attributes:
        x: A column of numbers; or "COLUMN of ARM", that arm's value with the same seed and the same varied values.
        y: A column of numbers. Default: the run's metric.
        color: The key whose values have a colour each: "strategy" (default), a varied key or another column.
        table: An analysis, whose table has the points. Default: the rounds, one point for each complete cell.
        round: Take columns from this round. Default: the last, with seconds, epochs, steps, samples and FLOPs summed.
        panels: The keys whose values make panels. Default none.
        log: The logarithmic axes: x, y or both.
    """

    kind: Literal["scatter"]
    x: str
    y: str = ""
    color: str = "strategy"
    table: TableName | None = None
    round: RoundIndex | None = None
    panels: tuple[str, ...] = ()
    log: LogAxes = ()

    measured: ClassVar[tuple[str, ...]] = ("x", "y")
    grouped: ClassVar[tuple[str, ...]] = ("color", "panels", "where")


class Heatmap(Figure):
    """A column by two varied numbers, mean over seeds; settings without a result are blank, with the reason.

    Attributes:
        rows: A varied key with numbers.
        columns: Another one.
        value: A column, or several, with a figure each. Default: the run's metric.
    """

    kind: Literal["heatmap"]
    rows: str
    columns: str
    value: Names = ()

    measured: ClassVar[tuple[str, ...]] = ("value",)
    grouped: ClassVar[tuple[str, ...]] = ("rows", "columns", "where")


class GridCurves(Figure):
    """Learning curves of a grid: a panel for each value of one varied number, a line for each value of another.

    Attributes:
        rows: A varied key with numbers: a panel for each value.
        columns: Another one: a line for each value.
        y: A column of rounds.csv with accuracies. Default: the run's metric.
    """

    kind: Literal["grid_curves"]
    rows: str
    columns: str
    y: str = ""

    measured: ClassVar[tuple[str, ...]] = ("y",)
    grouped: ClassVar[tuple[str, ...]] = ("rows", "columns", "where")


FIGURES: dict[str, type[Figure]] = {
    "curves": Curves, "against": Against, "scatter": Scatter, "heatmap": Heatmap, "grid_curves": GridCurves,
}  # fmt: skip
