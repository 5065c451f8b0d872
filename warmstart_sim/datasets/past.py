"""Another data set as it was at some time: its first samples in order of arrival."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, PositiveInt, ValidationError

from warmstart_sim.datasets.loading import load
from warmstart_sim.datasets.split import stratified_split
from warmstart_sim.errors import WarmstartError
from warmstart_sim.registry import DATASETS
from warmstart_sim.seeding import numpy_generator
from warmstart_sim.types import Dataset


@DATASETS.register("past", "same_for_every_seed")
def past(
    root: Path,
    seed: int,
    *,
    of: str | dict[str, Any],
    order: Annotated[int, Field(ge=0)] | None = None,
    samples: PositiveInt | None = None,
    held_out: Annotated[float, Field(gt=0, lt=1)] | None = None,
) -> Dataset:
    """Another data set as it was when its first samples had arrived, in one order for all seeds.

    With `stream: {name: online, order: given}` the training samples arrive in this order.

    Args:
        root: The folder of data sets.
        seed: Not used: the order is the same for every seed.
        of: The other data set: its name, or a mapping of its name and options.
        order: Seeds a random order, and the other data set if it depends on a seed. Default: the order in which it has
            its training samples.
        samples: How many of its training samples have arrived. Default all.
        held_out: The share of them that takes the place of its test samples, in (0, 1): the same of every class, at
            random. Default none: its own test samples.

    Raises:
        WarmstartError: There is no such data set, it has fewer samples, or `held_out` and no classes.
    """
    name, options = _component(of)
    whole = load(name, options, root, order or 0)
    count = len(whole.train)
    if (samples or 0) > count:
        raise WarmstartError(f"past: {samples} samples are more than the {count} of {name}")
    if count > 0 and order is not None:
        arriving = numpy_generator(order, "arrival").permutation(count)[:samples]
    else:
        arriving = np.arange(count)[:samples]
    train, test = whole.train.take(arriving), whole.test
    if held_out is not None:
        if whole.label_shape:
            raise WarmstartError(f"past: held_out: {name} has next tokens, and no classes to share out")
        kept, out = stratified_split(train.labels, held_out, numpy_generator(order or 0, "held_out"))
        train, test = train.take(kept), train.take(out)
    return Dataset("past", train, test, whole.classes, whole.vocabulary_size, whole.notes)


def _component(of: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The other data set's name and its checked options."""
    raw = {"name": of} if isinstance(of, str) else dict(of)
    name = str(raw.pop("name", ""))
    if ":" in name:
        return name, raw
    DATASETS.get(name)
    try:
        checked = DATASETS.schema(name).model_validate(raw)
    except ValidationError as error:
        fault = error.errors()[0]
        raise WarmstartError(f"past: of.{'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None
    return name, {key: getattr(checked, key) for key in type(checked).model_fields}
