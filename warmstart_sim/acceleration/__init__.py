"""Faster steps with the same numbers: CUDA graphs, stacked models, what stays on the device between cells."""
