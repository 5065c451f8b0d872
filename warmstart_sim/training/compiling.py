"""Compiles a model's forward and backward pass with torch.compile, for full batches on a CPU.

Compiling takes tens of seconds, but happens once for each kind of model in a process: torch keeps the code that it has
compiled by Python code, shapes and settings, and the next model of the kind finds it. The model stays as it is: its
state dict, copies of it and its hooks do not know of the compiled pass.
"""

from __future__ import annotations

import sys
import warnings

import torch
from torch import nn
from torch.utils import flop_counter

from warmstart_sim.processor import cpp_compiler
from warmstart_sim.training.batch_loss import Forward

# By default torch compiles a function for 8 kinds of inputs. Models of many kinds share one, such as `Network.forward`.
MOST_KINDS = 4096


def leave_compiler_out() -> None:
    """Keeps torch from importing its compiler, which takes 1.5 seconds, in a process that compiles nothing.

    torch imports it when some functions of its own are first called, to learn what is called in their place in compiled
    code, and keeps the answer with each. Here the answer is the function itself. Where a version of torch keeps it
    elsewhere, this changes nothing.
    """
    if "torch._dynamo" in sys.modules:
        return
    counter = getattr(flop_counter, "_FlopCounterMode", None)
    for function in (torch.optim.Optimizer.add_param_group, getattr(counter, "__torch_dispatch__", None)):
        original = getattr(function, "__wrapped__", None)
        if original is not None:
            setattr(original, "__dynamo_disable", original)


def compiled(model: nn.Module) -> Forward | None:
    """The model's forward pass, compiled when it is first called; None, after a warning, without a C++ compiler."""
    if cpp_compiler() is None:
        warn_not_compiled("there is no C++ compiler; install g++, or set CXX")
        return None
    limits = torch.compiler.config
    limits.recompile_limit = limits.accumulated_recompile_limit = MOST_KINDS
    return torch.compile(model, dynamic=False, fullgraph=True)


def warn_not_compiled(reason: object) -> None:
    """Warns that a model runs as it is; of an error, the first line is shown."""
    text = str(reason).strip().split("\n", 1)[0]
    warnings.warn(f"training.compile: the model is not compiled ({text}); it trains as without it", stacklevel=3)
