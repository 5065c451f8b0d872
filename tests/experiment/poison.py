"""Strategies that do what they should not."""


def not_a_number(previous, fresh, context):
    """A start that makes the loss NaN."""
    return {name: tensor * float("nan") if tensor.is_floating_point() else tensor for name, tensor in fresh.items()}


def incomplete(previous, fresh, context):
    """A state dict without its first entry."""
    return dict(list(fresh.items())[1:])


def crash(previous, fresh, context):
    """A user's bug."""
    raise ZeroDivisionError("one arm's own mistake")


def killed(previous, fresh, context):
    """What the kernel does to a process that takes too much memory."""
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)
