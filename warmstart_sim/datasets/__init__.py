"""Data sets: each is a function that returns training and test samples in memory (uint8 pixels, floats or tokens).

To add one, write a function `f(root, seed, *, options) -> Dataset` in a module of this package and decorate it with
`@DATASETS.register("name")`. Add the trait "same_for_every_seed" unless the function uses the seed.
"""

from warmstart_sim.datasets.loading import load
from warmstart_sim.datasets.validation import validate

__all__ = ["load", "validate"]
