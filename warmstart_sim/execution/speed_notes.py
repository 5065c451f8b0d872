"""What a user should know about `precision` and `compile` on a machine, in a line each. It never imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from warmstart_sim.datasets.known_sizes import known_shape
from warmstart_sim.processor import bf16_instructions, cpp_compiler
from warmstart_sim.registry import MODELS
from warmstart_sim.scenario import Cell
from warmstart_sim.training.settings import Training

# Pixels in all steps' images, one for each step, above which compiling pays. It takes each worker about half a minute,
# and saves some 5 microseconds a step and pixel; rounds end long before the cap for which steps are counted.
LONG_RUN = 10**8


def speed_notes(cells: Sequence[Cell], device: str, *, slots: bool = False) -> Iterator[str]:
    """What `precision: bf16` and `compile` mean on this machine's device, where cells ask for them.

    Args:
        cells: The cells to train.
        device: Such as "cpu" or "cuda:0".
        slots: Whether several cells are to train in a process, stacked if possible.
    """
    cuda = device.startswith("cuda")
    if not cuda and any(each.precision == "bf16" for cell in cells for each in _settings(cell)):
        found = bf16_instructions()
        if found:
            yield f"training.precision: bf16: the processor has {found}, so large layers are faster than in float32"
        elif found is not None:
            yield "training.precision: bf16: the processor has neither AVX512-BF16 nor AMX; float32 is faster on it"
    compiled = [cell for cell in cells if any(each.compile for each in _settings(cell))]
    if not compiled:
        return
    if cuda:
        yield "training.compile: it is for CPUs and changes nothing here: captured CUDA graphs save the same time"
        return
    if any(MODELS.has_trait(cell.model.name, "tokens") for cell in compiled):
        yield "training.compile: models for texts are not compiled, because the lengths of batches differ"
    if slots:
        yield "training.compile: compiled cells are not stacked; each worker trains one at a time"


def check_notes(cells: Sequence[Cell], steps: int) -> list[str]:
    """The notes of `check`, which knows no device: those of a CPU, and whether `compile` works and pays there.

    Args:
        cells: The cells of a scenario.
        steps: At most so many steps of all cells together.
    """
    return [*speed_notes(cells, "cpu"), *_compiling(cells, steps)]


def _compiling(cells: Sequence[Cell], steps: int) -> Iterator[str]:
    compiler = cpp_compiler()
    if any(each.compile for cell in cells for each in _settings(cell)):
        if compiler is None:
            yield "training.compile: there is no C++ compiler here, such as g++; models train as without it"
        return
    gaining = [cell for cell in cells if MODELS.has_trait(cell.model.name, "gains_by_compiling")]
    shapes = [known_shape(cell.data.name, cell.data.options) for cell in gaining]
    pixels = max((height * width for _, height, width in filter(None, shapes)), default=0)
    if compiler and steps * pixels >= LONG_RUN:
        yield (
            f"on a CPU, `--set training.compile=true` makes steps of {gaining[0].model.name} about 1.2 times as fast, "
            "after half a minute of compiling in each worker"
        )


def _settings(cell: Cell) -> Iterator[Training]:
    """The training settings of the first and of later rounds."""
    return (cell.arm.training.in_round(index) for index in (0, 1))
