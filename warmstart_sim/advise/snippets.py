"""Code that starts the next run as advised: plain PyTorch, and Avalanche. Both run as they are."""

from __future__ import annotations

from pathlib import Path

from warmstart_sim.advise.answer import Advice
from warmstart_sim.advise.halving import REFERENCE
from warmstart_sim.advise.question import Question
from warmstart_sim.training.settings import Optimizer, Training
from warmstart_sim.types import Dataset

OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}

PYTORCH = """\
import torch
{their_import}
import warmstart_sim
{our_import}LAST = "{last}"  # put the weights of your last run here
{model}
{start}
{optimizer}
# Train on all samples so far as you always do, then keep the weights for the next time:
warmstart_sim.save_weights(model, "last.safetensors")
"""

AVALANCHE = """\
import torch
from avalanche.training.supervised import Cumulative
{their_import}
import warmstart_sim
{our_import}from warmstart_sim.avalanche import ConvergencePlugin, StrategyPlugin

LAST = "{last}"  # put the weights of your last run here
{model}
{start}
{optimizer}
# The first experience trains from these weights; the plugin starts the second and all later ones.
plugins = [StrategyPlugin({strategy}){stop}]
strategy = Cumulative(
    model=model, optimizer=optimizer, criterion=torch.nn.CrossEntropyLoss(), plugins=plugins,
    train_mb_size={batch_size}, train_epochs={epochs},
)
# for experience in benchmark.train_stream: strategy.train(experience)
"""


def pytorch(question: Question, advice: Advice, dataset: Dataset, training: Training, last: Path) -> str:
    """A script of plain PyTorch.

    Args:
        question: What was asked.
        advice: The answer.
        dataset: For the shape of an input and the number of classes.
        training: How the model trains.
        last: The weights that the next run starts from.
    """
    words = _words(question, advice, dataset, training, last)
    return PYTORCH.format(**{**words, "our_import": f"{words['our_import']}\n"})


def avalanche(question: Question, advice: Advice, dataset: Dataset, training: Training, last: Path) -> str:
    """A script for Avalanche; see `pytorch`."""
    strategy = {
        "random_init": "warmstart_sim.RandomInit()",
        "warm_start": "warmstart_sim.WarmStart()",
        "shrink_perturb": f"warmstart_sim.ShrinkPerturb({advice.lam}, {advice.sigma})",
    }[advice.start]
    until = training.until
    stop = f", ConvergencePlugin({until.train_accuracy}, {until.max_epochs})" if until.train_accuracy else ""
    text = AVALANCHE.format(
        **_words(question, advice, dataset, training, last), strategy=strategy, stop=stop,
        batch_size=training.batch_size, epochs=until.cap,
    )  # fmt: skip
    return text if stop else text.replace("ConvergencePlugin, ", "")


def _words(question: Question, advice: Advice, dataset: Dataset, training: Training, last: Path) -> dict[str, str]:
    """What both scripts say alike."""
    module, own, function = question.model["name"].partition(":")
    options = {key: each for key, each in question.model.items() if key != "name"}
    where = f"{dataset.input_shape}, {dataset.classes}"
    if own:
        model = f"{function}({where}{''.join(f', {key}={each!r}' for key, each in options.items())})"
    else:
        size = f", {dataset.vocabulary_size}" if dataset.vocabulary_size else ""
        model = f'models.build("{module}", {options!r}, {where}{size})'
    lam, sigma = (1, 0) if advice.start == "warm_start" else (advice.lam, advice.sigma)
    started = f"warmstart_sim.start(model, LAST, lam={lam}, sigma={sigma})  # lam * LAST + sigma * fresh, in place"
    if advice.start == REFERENCE:
        started = "# Random init: the fresh weights are the start, and LAST is not used."
    return {
        "their_import": f"from {module} import {function}\n" if own else "",
        "our_import": "" if own else "from warmstart_sim import models\n",
        "last": str(last.resolve()),
        "model": f"model = {model}  # fresh weights",
        "start": started,
        "optimizer": f"optimizer = {_optimizer(training.optimizer)}  # a new one, made after the start",
    }


def _optimizer(settings: Optimizer) -> str:
    options = {"lr": settings.lr, "momentum": settings.momentum, "weight_decay": settings.weight_decay}
    given = "".join(f", {key}={value}" for key, value in options.items() if value)
    return f"torch.optim.{OPTIMIZERS[settings.name]}(model.parameters(){given})"
