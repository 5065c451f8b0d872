"""How should the next training run start? A simulator of retraining on data that keep arriving."""

__version__ = "0.1.0"
