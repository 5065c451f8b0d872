"""What all figures share: colours, a chart with its caption, and how it becomes PNG or SVG."""

from __future__ import annotations

import colorsys
import io
import re
import warnings
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure

INK, GRID, PAPER = "#22272e", "#d5dae0", "#ffffff"
# Okabe & Ito's colours, told apart by colour-blind eyes as well, less the yellow, which is faint on white.
PALETTE = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))

# Of heatmaps, which keep their colours on a dark page, since their lightness is what they say. In as few steps as the
# eye tells apart, so that a thousand cells are few shapes. From orange to blue, equal is pale.
HEAT = tuple(to_hex(each) for each in matplotlib.colormaps["cividis"](np.linspace(0, 1, 48)))
SIGNED = tuple(
    to_hex(each)
    for each in LinearSegmentedColormap.from_list("", ["#8f3b00", "#e08a3c", "#f6f4f0", "#5a9bd0", "#0b4a85"])(
        np.linspace(0, 1, 49)
    )
)
ON_LIGHT, ON_DARK = "#101214", "#fcfcfd"  # text in cells
FIXED = frozenset({*HEAT, *SIGNED, ON_LIGHT, ON_DARK})

STYLE: Any = {
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "figure.dpi": 100,
    "figure.constrained_layout.use": True, "font.family": "sans-serif", "font.size": 11,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.9, "axes.axisbelow": True,
    "axes.titlesize": 11, "axes.titleweight": "normal", "axes.labelsize": 11, "legend.fontsize": 10.5,
    "xtick.labelsize": 10.5, "ytick.labelsize": 10.5, "legend.frameon": False, "legend.handlelength": 2.2,
    "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.7, "lines.linewidth": 2.0, "lines.markersize": 6,
    "lines.markeredgecolor": PAPER, "lines.markeredgewidth": 0.8, "svg.fonttype": "none",
    "text.usetex": False, "text.parse_math": False, "axes.unicode_minus": True,
}  # fmt: skip
styled = matplotlib.rc_context(STYLE)  # decorates what draws: the user's own settings come back afterwards


@dataclass(frozen=True)
class Look:
    """How one line or point looks; `dash` is one of matplotlib's line styles."""

    colour: str
    marker: str
    dash: Any = "-"


@dataclass(frozen=True)
class Chart:
    """A figure and what stands around it.

    Attributes:
        name: The file's name, without suffix.
        title: A heading.
        caption: What is drawn, in full sentences: means of what, bands of what, measured how.
        figure: The drawing.
        columns: How many panels stand side by side.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    columns: int = 1

    def noting(self, note: str) -> Chart:
        """The same chart with a sentence more in its caption."""
        return replace(self, caption=f"{self.caption} {note}")


def looks(arms: list[str], reference: str) -> dict[str, Look]:
    """One look for each arm, the same in every figure: the reference in ink, the others in colours."""
    others = [arm for arm in arms if arm != reference]
    cycle = len(PALETTE)
    found = {
        arm: Look(PALETTE[i % cycle], MARKERS[i % cycle], DASHES[i // cycle % len(DASHES)])
        for i, arm in enumerate(others)
    }
    return found | {reference: Look(INK, "o")}


def sequence(count: int) -> list[str]:
    """Colours in order, for the values of a varied number: dark violet over blue and green to light green."""
    colours = matplotlib.colormaps["viridis"]
    return [to_hex(colours(0.1 + 0.75 * i / max(1, count - 1))) for i in range(count)]


def time_unit(longest: float) -> tuple[str, float]:
    """The unit for an axis of times that goes to `longest` seconds, and its length in seconds."""
    return ("s", 1.0) if longest < 600 else ("min", 60.0) if longest < 10800 else ("h", 3600.0)


@styled
def png(chart: Chart) -> bytes:
    """The chart on white, 200 dots an inch."""
    with io.BytesIO() as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a user's label in a script that DejaVu lacks
        FigureCanvasAgg(chart.figure)
        chart.figure.savefig(file, format="png", dpi=200, facecolor=PAPER, metadata={"Software": None})
        return file.getvalue()


@styled
def svg(chart: Chart) -> str:
    """The chart as an SVG file: text as text (small, searchable), the same bytes for the same numbers."""
    with io.StringIO() as file, warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": chart.name}):
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        chart.figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        return re.sub(r'\b(d|transform|points)="[^"]*"', _shortened, file.getvalue())


def _shortened(attribute: re.Match[str]) -> str:
    """Coordinates to a hundredth of a point: half the bytes, the same picture."""
    return re.sub(r"(\.\d\d)\d+", r"\1", attribute.group())


def inline(text: str, name: str, label: str) -> str:
    """An SVG file as an element of a page that holds others.

    Its ids begin with `name`, so that clip paths of two figures cannot be mixed up. Every colour, but for those of
    heatmaps, becomes a variable of the page (`colour_variables` defines them), which a dark page sets otherwise. It
    grows by a fifth at most.

    Args:
        text: The file.
        name: Unique in the page.
        label: What a screen reader says; already escaped.
    """
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"(fill|stroke): (#[0-9a-f]{6})", _as_variable, text)
    head = re.search(r'viewBox="0 0 ([\d.]+) [\d.]+"', text)
    assert head is not None  # matplotlib writes one, in points
    widest = round(1.2 * float(head[1]) * 4 / 3)
    start = f'<svg {head[0]} style="max-width: {widest}px" role="img" aria-label="{label}">'
    return re.sub(r"<svg [^>]*>", lambda _: start, text, count=1)


def colour_variables(texts: list[str], dark: bool) -> str:
    """CSS definitions of all colours that the SVG files use, less those that stay."""
    found = {colour for text in texts for colour in re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", text)}
    colours = sorted(found - FIXED)
    return " ".join(f"{_variable(colour)}: {on_dark(colour) if dark else colour};" for colour in colours)


def _as_variable(found: re.Match[str]) -> str:
    return found[0] if found[2] in FIXED else f"{found[1]}: var({_variable(found[2])})"


def text_on(colour: str) -> str:
    """The colour of text that is readable on a cell of this colour.

    >>> text_on("#00224e"), text_on("#fee838")
    ('#fcfcfd', '#101214')
    """
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return ON_LIGHT if luminance > 0.18 else ON_DARK  # where the contrast with both is the same


def _variable(colour: str) -> str:
    return f"--c{colour[1:]}"


def on_dark(colour: str) -> str:
    """The colour's partner on a dark page: greys turn over, the others are lifted to a middle lightness.

    >>> on_dark("#ffffff"), on_dark("#0072b2")
    ('#15191e', '#1aacff')
    """
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    if max(red, green, blue) - min(red, green, blue) < 0.1:  # a grey: ink, grid or paper
        return {INK: "#e3e8ee", GRID: "#353c45", PAPER: "#15191e"}.get(colour, colour)
    return to_hex(colorsys.hls_to_rgb(hue, max(lightness, 0.55), saturation))
