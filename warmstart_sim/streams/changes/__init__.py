"""Changes of any stream: which samples rounds train on, and what becomes of labels and inputs that arrive later.

Each is one file with a function, registered by what it `changes`; scenario/changed_data.py calls them in this order:

- "rounds": (rounds, labels, seed) -> rounds;
- "labels": (labels, arrived, seed, classes) -> labels, where `arrived` is the round in which each sample arrived;
- "inputs": (inputs, arrived, generator) -> inputs, for a block of float32 inputs: pixels in [0, 1], or other values.

A sample keeps the label and the inputs with which it arrived. Samples that a round is tested on are changed as if they
had arrived with it, except by changes with the trait "training_only". "needs_classes" says that samples must have a
class, not next tokens; "images_only", that inputs must be images.
"""

from __future__ import annotations

import numpy as np

from warmstart_sim.types import IntArray


def rounds_of_drift(arrived: IntArray, start: int) -> IntArray:
    """For how many rounds the drift that began with round `start` has lasted: 0 before it, 1 in that round.

    >>> rounds_of_drift(np.array([0, 1, 2, 3]), start=2).tolist()
    [0, 0, 1, 2]
    """
    return np.maximum(arrived - start + 1, 0)
