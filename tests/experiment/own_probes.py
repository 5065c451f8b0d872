"""Probes as a user might write them, named in scenarios as `tests.experiment.own_probes:NAME`."""


def head(context, *, power=1):
    return {"head_size": context.weights["head.weight"].abs().mean() ** power}


def draws(context):
    """Draws from torch's default generator, as a careless user might."""
    import torch

    return {"drawn": torch.rand(()).item()}


def not_finite(context):
    return {"infinite": float("inf"), "nan": float("nan"), "none": None}


def taken(context):
    return {"steps": 1.0}


def a_number(context):
    return 3.0


def a_text(context):
    return {"text": "three"}


def seconds(context):
    import time

    time.sleep(0.05)
    return {"slow": 1.0}
