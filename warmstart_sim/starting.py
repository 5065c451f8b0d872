"""Starts the next training run of a user's own script: `warmstart_sim.start(model, checkpoint, lam, sigma)`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from warmstart_sim import models
from warmstart_sim.errors import WarmstartError, unknown
from warmstart_sim.models.checkpoint_files import unwrapped
from warmstart_sim.models.weights import new_rows, read_weights, transfer_weights
from warmstart_sim.strategies.shrink_perturb import ShrinkPerturb
from warmstart_sim.types import Layout, RoundContext, StateDict

if TYPE_CHECKING:
    import torch
    from torch import nn

NOISES = ("fresh", "gaussian", "scaled")
Noise = Literal["fresh", "gaussian", "scaled"] | Mapping[str, "torch.Tensor"]


@dataclass(frozen=True)
class Started:
    """What `start` has done with a model's state dict, by the model's own names.

    Attributes:
        perturbed: Parameters that are now lambda * checkpoint + sigma * noise.
        kept: Entries that are now as in the checkpoint.
        fresh: Entries that are as the model had them.
        new_rows: Rows of a grown head that the checkpoint lacks; they are as the model had them.
        notes: What the checkpoint holds that was not used.
    """

    perturbed: tuple[str, ...]
    kept: tuple[str, ...]
    fresh: tuple[str, ...]
    new_rows: Mapping[str, int]
    notes: tuple[str, ...] = ()


def start(
    model: nn.Module,
    checkpoint: str | Path | Mapping[str, Any] | nn.Module,
    lam: float = 0.6,
    sigma: float = 0.01,
    *,
    noise: Noise = "fresh",
    parameters: Literal["all", "head", "body"] = "all",
    buffers: Literal["keep", "fresh"] = "keep",
    affine: Literal["shrink", "keep", "fresh"] = "shrink",
    head: Literal["grow", "fresh"] = "grow",
    include: Callable[[str, nn.Parameter], bool] | None = None,
    weights: str | None = None,
    generator: torch.Generator | None = None,
) -> Started:
    """Starts a training run from the last one's weights, shrunk and perturbed, in place.

    theta <- lambda * theta_checkpoint + sigma * theta_noise (Ash & Adams 2020, section 4), where the noise is the fresh
    initialisation that the model has when it comes here: build it, and call this. `lam=1, sigma=0` is warm start.

    The optimiser is yours: this function has none, and leaves every parameter the same object. Make a new optimiser
    after it, and begin the learning rate schedule anew, because the last run's moments belong to other weights.

    Nothing is changed unless everything fits. Tied parameters are changed once. What does not train keeps the
    checkpoint's values: parameters with `requires_grad=False`, integer and complex ones, BatchNorm statistics in frozen
    modules.

    Args:
        model: A model with fresh weights, on any device, also in DataParallel or compiled.
        checkpoint: A file that `torch.save` wrote (weights alone, a training script's or Lightning's checkpoint), or a
            .safetensors file; or the content of one, or the last model. No code in a file is executed. Prefixes and
            wrappers' names are found by what fits.
        lam: lambda in [0, 1], how much of the checkpoint remains.
        sigma: The scale of the noise, at least 0. With 0 nothing is drawn.
        noise: "fresh" (default), "gaussian" or "scaled" as in `ShrinkPerturb`; or tensors of your own by name.
        parameters: As in `ShrinkPerturb`.
        buffers: As in `ShrinkPerturb`.
        affine: Scale and shift of normalisation layers, as in `ShrinkPerturb`: "shrink" like all others (default),
            "keep", or "fresh".
        head: "grow" (default): the model's head may have more classes than the checkpoint's; the rows of new classes,
            which come last, stay fresh. "fresh": all of the head stays fresh.
        include: Which parameters are shrunk and perturbed, `include(name, parameter)`; the others keep the
            checkpoint's values. Default all.
        weights: Which weights of a checkpoint with several, such as "state_dict_ema"; by default those that fit best,
            and no running mean.
        generator: Draws gaussian noise; a CPU generator, so that every device sees the same. Default torch's.

    Returns:
        What became of each entry of the state dict.

    Raises:
        WarmstartError: A value outside its range, or a checkpoint or noise that does not fit; the message says which
            tensors differ, and how.
        DataError: The file cannot be read.

    >>> import torch
    >>> last, model = torch.nn.Linear(1, 1, bias=False), torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False))
    >>> _ = torch.nn.init.constant_(last.weight, 4.0), torch.nn.init.constant_(model[0].weight, 1.0)
    >>> start(model, last, lam=0.5, sigma=0.25).perturbed, model[0].weight.item()
    (('0.weight',), 2.25)
    """
    import torch

    from warmstart_sim.training.starts import never_trained

    if isinstance(noise, str) and noise not in NOISES:
        raise WarmstartError(f"noise: found {noise!r} (allowed: {', '.join(NOISES)}, or tensors of your own by name)")
    drawn = noise if isinstance(noise, str) else "fresh"
    strategy = _strategy(lam=lam, sigma=sigma, noise=drawn, parameters=parameters, buffers=buffers, affine=affine)
    if head not in ("grow", "fresh"):
        raise WarmstartError(f"head: found {head!r} (allowed: grow, fresh)")
    if generator is not None and generator.device.type != "cpu":
        raise WarmstartError(
            f"generator: it is on {generator.device}; noise is drawn on the CPU, so that every device sees the same: "
            "pass torch.Generator().manual_seed(0)"
        )
    model = unwrapped(model)
    _check_materialized(model)
    fresh = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    single = not any("." in name for name in fresh)  # a layer alone has no module that could be its head
    own = frozenset(name for name, _ in _all_parameters(model))
    layout = Layout(own, frozenset(), (), head="") if single else models.layout(model)
    stored, notes = read_weights(_content(checkpoint), model, layout, weights, prefix="")
    previous = transfer_weights(stored, fresh, layout, head, "the checkpoint's weights")

    tied = _tied(model)
    _check_tied(tied, previous)
    changed = _changed(model, tied, include)
    layout_of_changed = replace(layout, parameters=changed)
    own_noise = {} if isinstance(noise, str) else _checked_noise(noise, fresh, strategy.perturbed(layout_of_changed))
    context = RoundContext(1, layout_of_changed, lambda purpose: generator or torch.default_generator)
    state = dict(strategy(previous, {**fresh, **own_noise}, context))

    frozen = frozenset(name for name, each in _all_parameters(model) if not each.requires_grad)
    constant = never_trained(model, frozen) | (layout.parameters - changed)
    state |= {name: previous[name] for name in constant}
    if head == "fresh":
        state |= {name: fresh[name] for name in state if layout.in_head(name)}
    kept = tuple(name for name in state if state[name] is previous[name])
    unchanged = tuple(name for name in state if state[name] is fresh[name])
    grown = {name: rows for name in state if (rows := new_rows(name, stored, fresh)) and head == "grow"}
    for name, rows in grown.items():
        state[name] = torch.cat([state[name][:-rows], fresh[name][-rows:]])
    for first, *others in tied:
        state |= dict.fromkeys(others, state[first])
    model.load_state_dict(state)
    perturbed = tuple(name for name in state if name not in {*kept, *unchanged})
    return Started(perturbed, kept, unchanged, grown, tuple(notes))


def _strategy(**options: Any) -> ShrinkPerturb:
    try:
        return ShrinkPerturb(**options)
    except ValidationError as error:
        fault = error.errors()[0]
        name = {"lambda": "lam"}.get(str(fault["loc"][0]), str(fault["loc"][0]))
        raise WarmstartError(f"{name}: found {fault['input']!r} ({fault['msg']})") from None


def _content(checkpoint: str | Path | Mapping[str, Any] | nn.Module) -> Path | Mapping[str, Any]:
    if isinstance(checkpoint, (str, Path)):
        return Path(checkpoint)
    return checkpoint if isinstance(checkpoint, Mapping) else checkpoint.state_dict()


def _all_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters, tied ones under all their names, as in the state dict."""
    return model.named_parameters(remove_duplicate=False)


def _check_materialized(model: nn.Module) -> None:
    from torch.nn.parameter import is_lazy

    for name, each in _all_parameters(model):
        if is_lazy(each) or each.is_meta:
            how = "has no shape yet; pass a batch through the model first" if is_lazy(each) else "is on the meta device"
            raise WarmstartError(f"model: parameter '{name}' {how}")


def _tied(model: nn.Module) -> list[list[str]]:
    """Groups of names in the state dict that are one tensor: the same object, or the same memory."""
    groups: dict[Any, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        memory = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else name
        groups.setdefault(memory, []).append(name)
    return list(groups.values())


def _check_tied(tied: Iterable[list[str]], previous: StateDict) -> None:
    for first, *others in tied:
        for name in others:
            if not previous[first].equal(previous[name]):
                raise WarmstartError(
                    f"'{first}' and '{name}' are one tensor in the model, but differ in the checkpoint; leave one of "
                    "them out there"
                )


def _changed(
    model: nn.Module, tied: Iterable[list[str]], include: Callable[[str, nn.Parameter], bool] | None
) -> frozenset[str]:
    """The parameters that may be shrunk: real floating-point ones that train and that `include` takes."""
    parameters = dict(_all_parameters(model))
    trained = [
        group for group in tied
        if (each := parameters.get(group[0])) is not None and each.requires_grad and each.is_floating_point()
    ]  # fmt: skip
    taken = [group for group in trained if include is None or include(group[0], parameters[group[0]])]
    if include is not None and trained and not taken:
        warnings.warn(
            f"include takes none of the {len(trained)} parameters (such as '{trained[0][0]}'), so nothing is shrunk "
            "or perturbed",
            stacklevel=3,
        )
    return frozenset(name for group in taken for name in group)


def _checked_noise(noise: Mapping[str, torch.Tensor], fresh: StateDict, perturbed: frozenset[str]) -> StateDict:
    """The user's noise, if it has a tensor of the right kind for each parameter that is perturbed."""
    for name, tensor in noise.items():
        if name not in fresh:
            raise WarmstartError(f"noise: {unknown('parameter', name, fresh)}")
        expected = fresh[name]
        if tensor.shape != expected.shape:
            raise WarmstartError(
                f"noise: '{name}' has shape {tuple(tensor.shape)}, and the parameter {tuple(expected.shape)}"
            )
        if tensor.device != expected.device:
            raise WarmstartError(f"noise: '{name}' is on {tensor.device}, and the parameter on {expected.device}")
        if not tensor.is_floating_point():
            raise WarmstartError(f"noise: '{name}' is {tensor.dtype}; noise is of a floating-point type")
    if missing := sorted(perturbed - noise.keys()):
        raise WarmstartError(
            f"noise: there is none for {len(missing)} of the parameters, such as '{missing[0]}'; leave them out with "
            "include, or add zeros"
        )
    return {name: tensor.to(fresh[name].dtype) for name, tensor in noise.items() if name in perturbed}
