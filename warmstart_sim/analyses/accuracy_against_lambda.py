"""How accurate trained weights are after all of them are multiplied by lambda (Ash & Adams 2020, Figure 6)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from warmstart_sim.experiment.stored_run import StoredRun
from warmstart_sim.registry import ANALYSES
from warmstart_sim.results.columns import Row

if TYPE_CHECKING:
    import torch
    from torch import nn

    Batch = tuple[torch.Tensor, torch.Tensor]  # inputs and labels

Statistics = Literal["kept", "estimated_again", "of_batch"]
TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SPLITS: tuple[Literal["validation", "test"], ...] = ("validation", "test")


@ANALYSES.register(
    "accuracy_against_lambda",
    "needs_weights",
    columns={f"{split}_accuracy": "fraction" for split in SPLITS},
    figure={
        "kind": "against",
        "title": "Accuracy of weights multiplied by λ, without training",
        "caption": "BatchNorm's running statistics are kept, estimated again on the training data for every λ, or "
        "replaced by those of each batch.",
        "x": "weights_times",
        "y": ["validation_accuracy", "test_accuracy"],
        "lines": "statistics",
    },
)
def accuracy_against_lambda(
    run: StoredRun,
    /,
    *,
    lambdas: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = TENTHS,
    statistics: Annotated[tuple[Statistics, ...], Field(min_length=1)] = ("kept", "estimated_again", "of_batch"),
) -> Iterator[Row]:
    """Accuracy of each cell's last weights when all parameters are multiplied by lambda, without training.

    With BatchNorm the answer depends on the running statistics, which are no parameters. Each of three ways is a row:
    `kept` leaves them as they are; `estimated_again` estimates them anew on the training data of the last round, for
    every lambda; `of_batch` normalises each batch by its own statistics. A model without running statistics has rows
    of `kept` only. Source: Ash & Adams 2020 (Figure 6), Kireev et al. 2021 (Figure 7); neither says which way it went.

    Args:
        run: The run.
        lambdas: The numbers to multiply by, at least 0. Default 0.1, 0.2, ..., 1.
        statistics: Which ways. Default all three.

    Columns:
        `weights_times` (lambda), `statistics`; `validation_accuracy` and `test_accuracy`, empty without such samples.
    """
    for cell in run.cells():
        model = cell.model()
        for way in statistics if batch_norms(model) else ("kept",):
            for lam in lambdas:
                shrunk = multiplied(model, lam)
                if way == "estimated_again":
                    estimate_again(shrunk, cell.batches("train"))
                elif way == "of_batch":
                    use_batch_statistics(shrunk)
                found = {f"{split}_accuracy": accuracy(shrunk, cell.batches(split)) for split in SPLITS}
                yield {**cell.identity, "weights_times": lam, "statistics": way, **found}


def multiplied(model: nn.Module, lam: float) -> nn.Module:
    """A copy of the model with all parameters multiplied by lambda; its buffers are the same."""
    import torch

    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(lam)
    return model


def batch_norms(model: nn.Module) -> list[Any]:
    """The BatchNorm layers with running statistics."""
    from torch.nn.modules.batchnorm import _BatchNorm

    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [layer for layer in layers if layer.running_mean is not None]


def estimate_again(model: nn.Module, batches: Iterable[Batch]) -> None:
    """Sets the running statistics to the averages over these batches, each counting the same."""
    from torch.optim.swa_utils import update_bn

    update_bn((inputs for inputs, _ in batches), model)


def use_batch_statistics(model: nn.Module) -> None:
    """Makes BatchNorm normalise by the statistics of the batch in evaluation mode, too."""
    for layer in batch_norms(model):
        layer.running_mean = layer.running_var = None


def accuracy(model: nn.Module, batches: Iterable[Batch]) -> float | None:
    """The share of samples that the model, in evaluation mode, classifies correctly; None without samples."""
    import torch

    model.eval()
    with torch.no_grad():
        hits = [model(inputs).argmax(1) == labels for inputs, labels in batches]
    return torch.cat(hits).double().mean().item() if hits else None
