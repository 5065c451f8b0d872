"""A decision tree that predicts the best method of a setting, and its rules."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from warmstart_sim.results.columns import Row
from warmstart_sim.results.statistics import NOISE_DIGITS


@dataclass(frozen=True)
class Node:
    """A node of a decision tree.

    Attributes:
        rule: The conditions on the way to it, the last one being its own; empty for the root.
        counts: How often each arm is best there, the most frequent first.
        children: Where its question leads, no first and yes second; empty for a leaf.
    """

    rule: tuple[str, ...]
    counts: Mapping[str, int]
    children: tuple[Node, ...] = ()

    @property
    def gini(self) -> float:
        """The Gini index of the arms: 1 - sum share^2."""
        shares = np.array(list(self.counts.values())) / sum(self.counts.values())
        return float(1 - np.square(shares).sum())


def fit(features: pd.DataFrame, accuracies: pd.DataFrame, depth: int = 4, leaf: int = 7) -> Node:
    """Fits a decision tree and returns its root.

    Args:
        features: A row for each setting; text is a yes-no question for each of its values.
        accuracies: A row for each setting, in the same order, and a column for each method.
        depth: The most questions on the way to a leaf.
        leaf: The fewest settings in a leaf.
    """
    from sklearn.tree import DecisionTreeClassifier

    values = accuracies.to_numpy().round(NOISE_DIGITS)
    settings, columns = np.nonzero(values == values.max(axis=1, keepdims=True))
    best = [str(accuracies.columns[int(column)]) for column in columns]  # a case for each best method of each setting
    if features.columns.empty:  # all settings are alike
        return Node((), _count(best))
    numbers = set(features.select_dtypes("number"))
    text = {name: str for name in features if name not in numbers}
    questions = pd.get_dummies(features.astype(text), prefix_sep=" = ")
    for name in text:
        if features[name].nunique() == 2:  # "is it yes?" and "is it no?" are one question
            questions = questions.drop(columns=f"{name} = {min(features[name].astype(str))}")
    table = questions.to_numpy(np.float32)[settings]
    tree = DecisionTreeClassifier(max_depth=depth, min_samples_leaf=leaf, random_state=0).fit(table, best).tree_
    reached = tree.decision_path(table).toarray().astype(bool)  # (cases, nodes)

    def node(index: int, rule: tuple[str, ...]) -> Node:
        counts = _count(itertools.compress(best, reached[:, index]))
        if tree.children_left[index] < 0:
            return Node(rule, counts)
        name, threshold = questions.columns[tree.feature[index]], tree.threshold[index]
        if name in numbers:
            no, yes = f"{name} <= {threshold:g}", f"{name} > {threshold:g}"
        else:
            no, yes = name.replace(" = ", " is not "), name.replace(" = ", " is ")
        below, above = int(tree.children_left[index]), int(tree.children_right[index])
        return Node(rule, counts, (node(below, (*rule, no)), node(above, (*rule, yes))))

    return node(0, ())


def _count(names: Iterable[str]) -> dict[str, int]:
    """How often each name occurs, the most frequent first."""
    return dict(Counter(names).most_common())


AND = re.compile(r" and (?=\S+ (?:is|<=|>) )")  # between two conditions; a value may hold the word, too


def tree_of(rows: Iterable[Mapping[Any, Any]]) -> Node:
    """The root of the tree whose `leaves` these are."""
    found = []
    for row in rows:
        rule = () if row["rule"] == "always" else tuple(AND.split(row["rule"]))
        counts = {arm: int(count) for arm, count in re.findall(r"(.+?) (\d+)(?:, |$)", row["arms"])}
        found.append(Node(rule, counts))
    return _above((), found)


def _above(rule: tuple[str, ...], below: Sequence[Node]) -> Node:
    """The node with this rule, above these leaves."""
    if len(below) == 1 and below[0].rule == rule:
        return below[0]
    branches = itertools.groupby(below, key=lambda leaf: leaf.rule[len(rule)])
    children = tuple(_above((*rule, condition), list(nodes)) for condition, nodes in branches)
    counts = sum((Counter(child.counts) for child in children), Counter())
    return Node(rule, dict(counts.most_common()), children)


def leaves(node: Node) -> Iterator[Row]:
    """The rows of the analysis `decision_tree`: one for each leaf."""
    for child in node.children:
        yield from leaves(child)
    if not node.children:
        (first, count), total = next(iter(node.counts.items())), sum(node.counts.values())
        yield {
            "rule": " and ".join(node.rule) or "always", "strategy": first, "best": total, "share": count / total,
            "gini": node.gini, "arms": ", ".join(f"{arm} {count}" for arm, count in node.counts.items()),
        }  # fmt: skip
