"""What all figures share: colours and fonts, a figure with its caption, and its conversion to PNG and SVG."""

from __future__ import annotations

import colorsys
import io
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

INK, GRID, PAPER, GREY = "#22272e", "#d5dae0", "#ffffff", "#808080"  # GREY is readable on white and on black
# The colours of Okabe & Ito, which colour-blind readers can tell apart, without the yellow, which is faint on white.
PALETTE = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("s", "^", "D", "v", "P", "X", "p", "<", "*", ">", "h")  # eleven: 66 pairs with the six colours
DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))

# Colours of heatmaps. They stay as they are on a dark page, because their lightness carries the value. There are only
# as many as the eye can tell apart, so that a thousand cells become few shapes.
SEQUENTIAL = tuple(to_hex(color) for color in matplotlib.colormaps["cividis"](np.linspace(0, 1, 48)))
DIVERGING = tuple(  # from orange over a pale zero to blue
    to_hex(color)
    for color in LinearSegmentedColormap.from_list("", ["#8f3b00", "#e08a3c", "#f6f4f0", "#5a9bd0", "#0b4a85"])(
        np.linspace(0, 1, 49)
    )
)
COST = tuple(to_hex(color) for color in matplotlib.colormaps["BuPu"](np.linspace(0.08, 1, 48)))  # pale: cheap
DARK_TEXT, LIGHT_TEXT = "#101214", "#fcfcfd"  # in cells of heatmaps
HEATMAP_COLORS = frozenset({*SEQUENTIAL, *DIVERGING, *COST, DARK_TEXT, LIGHT_TEXT})

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
styled = matplotlib.rc_context(STYLE)  # decorates functions that draw; the user's own settings come back afterwards


@dataclass(frozen=True)
class LineStyle:
    """The appearance of a line or of points, in matplotlib's terms."""

    color: str
    marker: str
    linestyle: Any = "-"


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its title and caption.

    Attributes:
        name: The file's name, without suffix.
        title: The heading above the figure.
        caption: Full sentences: which quantity, mean of what, interval of what, how measured.
        figure: The matplotlib figure.
        section: The heading of the report's section that holds the figure.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    section: str = "Figures"

    @property
    def width(self) -> float:
        """The width in inches."""
        return float(self.figure.get_figwidth())

    def with_note(self, note: str) -> ReportFigure:
        """The same figure with another sentence at the end of its caption."""
        return replace(self, caption=f"{self.caption} {note}")


def sequential_colors(count: int) -> list[str]:
    """Colours in order, for the values of a varied number: dark violet over blue and green to light green."""
    colormap = matplotlib.colormaps["viridis"]
    return [to_hex(colormap(0.1 + 0.75 * i / max(1, count - 1))) for i in range(count)]


@styled
def to_png(figure: ReportFigure) -> bytes:
    """The figure on white, at 200 dots per inch."""
    with io.BytesIO() as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a user's label in a script that DejaVu lacks
        FigureCanvasAgg(figure.figure)
        figure.figure.savefig(file, format="png", dpi=200, facecolor=PAPER, metadata={"Software": None})
        return file.getvalue()


@styled
def to_svg(figure: ReportFigure) -> str:
    """The figure as an SVG file: text stays text (small, searchable), and equal numbers give equal bytes.

    The layout is computed once, here, and the figure keeps it: its PNG looks the same. Matplotlib itself would draw
    twice, the first time for the layout only.
    """
    with io.StringIO() as file, warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": figure.name}):
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        FigureCanvasSVG(figure.figure)
        if figure.figure.axes and (layout := figure.figure.get_layout_engine()):
            layout.execute(figure.figure)
            with matplotlib.rc_context({"figure.constrained_layout.use": False}):
                figure.figure.set_layout_engine(None)
        figure.figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        text = HOVER.sub(r'<path d="\2" \3fill="none" pointer-events="all"><title>\1</title></path>', file.getvalue())
        return re.sub(r'\b(d|transform|points)="[^"]*"', _round_coordinates, text)


def _round_coordinates(attribute: re.Match[str]) -> str:
    """Cuts coordinates to a hundredth of a point: half the bytes, the same picture."""
    return re.sub(r"(\.\d\d)\d+", r"\1", attribute.group())


# Matplotlib has no hover texts, but writes the address of a shape as a link around it.
HOVER = re.compile(r'<a xlink:href="hover:([^"]*)"[^>]*>\s*<path d="([^"]*)" (clip-path="[^"]*" )?[^>]*/>\s*</a>')
MOST_HOVERS = 150  # in one call; each takes about 220 bytes
HOVER_POINTS = 14  # the width of what shows a point's text


def add_hover(ax: Axes, x: ArrayLike, y: ArrayLike, texts: Iterable[str], shift: Any = None) -> None:
    """Gives points a text, which browsers show while the pointer is over them; `shift` moves them on the screen."""
    urls = [f"hover:{text}" for text in texts]
    if len(urls) <= MOST_HOVERS:
        points = ax.scatter(x, y, HOVER_POINTS**2, color="none", marker="s", urls=urls)
        points.set_in_layout(False)
        if shift:
            points.set_offset_transform(ax.transData + shift)


def add_cell_hover(ax: Axes, texts: Mapping[tuple[int, int], str]) -> None:
    """Gives the cells (row, column) of a heatmap a text, as `add_hover` does."""
    if len(texts) <= MOST_HOVERS:
        corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
        boxes = [corners + np.array([column, row]) for row, column in texts]
        urls = [f"hover:{text}" for text in texts.values()]
        ax.add_collection(PolyCollection(boxes, facecolors="none", edgecolors="none", urls=urls), autolim=False)


def inline_svg(svg: str, name: str, label: str) -> str:
    """An SVG file as an element of a page that holds several.

    Its ids get the prefix `name`, so that the clip paths of two figures cannot be mixed up. Every colour outside the
    cells of heatmaps becomes a CSS variable, which `color_variables` defines for light and dark pages. The element is
    at most a fifth larger than the file.

    Args:
        svg: The text of the file.
        name: Unique in the page.
        label: The text for screen readers, already escaped.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = COLOR.sub(
        lambda found: found[0] if found[2] in HEATMAP_COLORS else f"{found[1]}: var(--c{found[2][1:]})", svg
    )
    view_box = re.search(r'viewBox="0 0 ([\d.]+) [\d.]+"', svg)
    assert view_box is not None  # matplotlib writes one, in points
    max_width = round(1.2 * float(view_box[1]) * 4 / 3)
    start = f'<svg {view_box[0]} style="max-width: {max_width}px" role="img" aria-label="{label}">'
    return re.sub(r"<svg [^>]*>", lambda _: start, svg, count=1)


COLOR = re.compile(r"(fill|stroke): (#[0-9a-f]{6})")


def color_variables(svgs: list[str]) -> str:
    """CSS definitions, for light and dark pages, of the variables that `inline_svg` puts into these files."""
    colors = {color for svg in svgs for _, color in COLOR.findall(svg)} - HEATMAP_COLORS
    return " ".join(f"--c{color[1:]}: light-dark({color}, {on_dark(color)});" for color in sorted(colors))


def text_color(background: str) -> str:
    """The colour of text that is readable on this background.

    >>> text_color("#00224e"), text_color("#fee838")
    ('#fcfcfd', '#101214')
    """
    parts = [int(background[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return DARK_TEXT if luminance > 0.18 else LIGHT_TEXT  # at 0.18 both have the same contrast


def on_dark(color: str) -> str:
    """The colour's counterpart on a dark page: greys are inverted, other colours get at least a middle lightness.

    >>> on_dark("#ffffff"), on_dark("#0072b2")
    ('#15191e', '#1aacff')
    """
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    if max(red, green, blue) - min(red, green, blue) < 0.1:  # a grey: ink, grid or paper
        return {INK: "#e3e8ee", GRID: "#353c45", PAPER: "#15191e"}.get(color, color)
    return to_hex(colorsys.hls_to_rgb(hue, max(lightness, 0.55), saturation))
