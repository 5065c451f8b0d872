"""Data sets: one function each, giving training and test samples in memory (uint8 pixels, floats or tokens).

To add one, write a function `f(root, seed, *, options) -> Dataset` in a module of this package, with
`@DATASETS.register("name")` above it; with the trait "same_for_every_seed" unless it draws from the seed.
"""

from warmstart_sim.datasets.loading import load
from warmstart_sim.datasets.validation import validate

__all__ = ["load", "validate"]
