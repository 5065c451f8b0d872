"""Draws decision trees: that of a run's analysis, or any other."""

from __future__ import annotations

from matplotlib.figure import Figure

from warmstart_sim.report.style import INK, PALETTE, PAPER, ReportFigure, styled
from warmstart_sim.results.decision_tree import Node, leaves, tree_of
from warmstart_sim.results.tables import Run


def decision_tree_figure(run: Run) -> ReportFigure | None:
    """The tree of the analysis `decision_tree`, if the run has its table."""
    if not (run.folder / "decision_tree.csv").exists():
        return None
    return draw(tree_of(run.analysis("decision_tree").to_dict("records")), list(run.scenario["strategies"]))


@styled
def draw(root: Node, methods: list[str]) -> ReportFigure:
    """The tree from left to right: the condition on each line, the most frequent methods in each leaf."""
    count = len(list(leaves(root)))
    figure = Figure(figsize=(11, 0.75 * count + 0.6))
    axes = figure.subplots()
    axes.set_axis_off()
    heights = iter(range(count))

    def place(node: Node, depth: int) -> float:
        """Draws a node and all below it; returns its height."""
        ys = [place(child, depth + 1) for child in node.children]
        y = sum(ys) / len(ys) if ys else next(heights)
        for child, at in zip(node.children, ys, strict=True):
            axes.plot([depth, depth + 0.12, depth + 1], [y, at, at], color=INK, linewidth=0.9)
            axes.text(depth + 0.16, at + 0.06, child.rule[-1], fontsize=8.5, va="bottom")
        if not node.children:
            most = [f"{arm} {times}" for arm, times in node.counts.items()][: 3 if node.gini > 0.5 else 1]
            color = PALETTE[methods.index(next(iter(node.counts))) % len(PALETTE)]
            axes.text(
                depth + 0.03, y, f"{', '.join(most)} of {sum(node.counts.values())}", fontsize=9, va="center",
                bbox={"facecolor": PAPER, "edgecolor": color, "boxstyle": "round,pad=0.3"},
            )  # fmt: skip
        return y

    place(root, 0)
    axes.set_xlim(-0.1, 1 + max(len(row["rule"].split(" and ")) for row in leaves(root)) + 0.3)
    axes.set_ylim(-0.6, count - 0.4)
    caption = (
        "A decision tree that predicts the most accurate method from the settings. Leaves: how often a method is best "
        "there; the first three where the Gini index is above 0.5."
    )
    return ReportFigure("decision_tree", "The best method by design", caption, figure)
