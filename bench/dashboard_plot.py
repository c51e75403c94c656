"""A dashboard as one picture: panels where Grafana puts them, from what Prometheus answered."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator
from msgspec import Struct
from PIL import Image

WIDTH, COLUMNS, ROW, DPI = 1400, 24, 31, 100
"""Pixels of the picture and of a row of the grid, which has so many columns."""

MARGIN, HEAD = 8, 44
LEFT, RIGHT, TOP, BOTTOM = 78, 18, 32, 26
"""Between a panel's border and its axes."""

LINE, HANDLE, GAP = 18, 16, 14
COLORS = (
    *("#3274d9", "#e0752d", "#56a64b", "#c4162a", "#8f3bb8"),
    *("#e0b400", "#0a93a8", "#d6589f", "#7d5a3c", "#6b7280"),
)
INK, GRAY, FAINT, PAPER = "#24292e", "#6a7079", "#d8dce1", "#f4f5f5"
SHADES = 16
BINARY, DECIMAL = ("", "Ki", "Mi", "Gi", "Ti"), ("", "k", "M", "G", "T")
NO_DATA = "no data in this run"


class Line(Struct, frozen=True):
    """One line of a panel: seconds since the beginning, and values, which may be no number."""

    name: str
    times: list[float]
    values: list[float]

    @property
    def drawn(self) -> bool:
        """Whether there is anything to see."""
        return any(map(math.isfinite, self.values))


class Panel(Struct, frozen=True):
    """A panel: `place` is Grafana's `gridPos`, `unit` its name of a unit."""

    title: str
    unit: str
    place: dict[str, int]
    lines: list[Line]


def write_dashboard(title: str, panels: list[Panel], seconds: float, path: Path) -> None:
    """Draw it."""
    rows = max(each.place["y"] + each.place["h"] for each in panels)
    height = HEAD + rows * ROW + MARGIN
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=PAPER)
    drawing = _Drawing(figure, height)
    drawing.text(MARGIN + 6, HEAD / 2, title, size=13, weight="bold")
    for panel in panels:
        drawing.panel(panel, seconds)
    drawing.save(path)


class _Drawing:
    """Places in pixels, from the upper left corner."""

    def __init__(self, figure: Figure, height: int) -> None:
        self._figure = figure
        self._height = height
        canvas: Any = FigureCanvasAgg(figure)
        self._canvas, self._renderer = canvas, canvas.get_renderer()

    def save(self, path: Path) -> None:
        """In the colors that are used and their shades, which makes a file a third as large."""
        self._canvas.draw()
        size = self._canvas.get_width_height()
        picture = Image.frombuffer("RGBA", size, self._canvas.buffer_rgba()).convert("RGB")
        picture.quantize(palette=_palette(), dither=Image.Dither.NONE).save(path, optimize=True)

    def text(self, x: float, y: float, said: str, **style: Any) -> Any:
        at = x / WIDTH, 1 - y / self._height
        return self._figure.text(*at, said, va="center", **{"color": INK, **style})

    def panel(self, panel: Panel, seconds: float) -> None:
        unit = (WIDTH - MARGIN) / COLUMNS
        x, y = MARGIN + panel.place["x"] * unit, HEAD + panel.place["y"] * ROW
        width, height = panel.place["w"] * unit - MARGIN, panel.place["h"] * ROW - MARGIN
        corner = x / WIDTH, 1 - (y + height) / self._height
        size = width / WIDTH, height / self._height
        style: dict[str, Any] = {"facecolor": "white", "edgecolor": FAINT, "zorder": -1}
        border = Rectangle(corner, *size, transform=self._figure.transFigure, **style)
        self._figure.add_artist(border)
        self.text(x + 10, y + TOP / 2, panel.title, size=9.5, weight="bold")
        lines = [line for line in panel.lines if line.drawn]
        if not lines:
            self.text(x + width / 2, y + height / 2, NO_DATA, size=10, ha="center", color=GRAY)
            return
        rows = self._legend([line.name for line in lines], x + 12, y + height, width - 24)
        below = BOTTOM + rows * LINE + 4
        place = x + LEFT, y + TOP, width - LEFT - RIGHT, height - TOP - below
        self._axes(panel.unit, lines, seconds, place)

    def _axes(self, unit: str, lines: list[Line], seconds: float, place: tuple[float, ...]) -> None:
        x, y, width, height = place
        bottom = 1 - (y + height) / self._height
        axes: Any = self._figure.add_axes((x / WIDTH, bottom, width / WIDTH, height / self._height))
        for number, line in enumerate(lines):
            style = {"color": _color(number), "linewidth": 1.5, "clip_on": False, "zorder": 3}
            axes.plot(line.times, line.values, **style)
        top = max(value for line in lines for value in line.values if math.isfinite(value))
        top = top * 1.12 or 1.0
        axes.set(xlim=(0, seconds), ylim=(0, top))
        axes.yaxis.set_major_locator(FixedLocator(marks(top, unit)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s"))
        axes.grid(visible=True, color=FAINT, linewidth=0.6)
        axes.tick_params(labelsize=8, length=0, pad=5, colors=GRAY)
        axes.spines[:].set_visible(False)

    def _legend(self, names: list[str], x: float, bottom: float, width: float) -> int:
        """Names from left to right in as many rows as it takes, the last at the bottom."""
        rows: list[list[Any]] = [[]]
        used = 0.0
        for number, name in enumerate(names):
            text = self.text(0, 0, name, size=8)
            wide = HANDLE + text.get_window_extent(self._renderer).width + GAP
            if used and used + wide > width:
                rows.append([])
                used = 0.0
            rows[-1].append((text, x + used, _color(number)))
            used += wide
        for row, y in zip(reversed(rows), _upwards(bottom), strict=False):
            level = 1 - y / self._height
            for text, left, color in row:
                text.set_position(((left + HANDLE) / WIDTH, level))
                ends = [left / WIDTH, (left + HANDLE - 5) / WIDTH]
                self._figure.add_artist(Line2D(ends, [level, level], color=color, linewidth=2.5))
        return len(rows)


def _palette() -> Image.Image:
    """All colors, each in shades from itself to white."""
    full = [to_rgb(color) for color in (*COLORS, INK, GRAY, FAINT, PAPER)]
    shades = [
        round(255 * (part + (1 - part) * step / (SHADES - 1)))
        for color in full
        for step in range(SHADES)
        for part in color
    ]
    palette = Image.new("P", (1, 1))
    palette.putpalette(shades)
    return palette


def _upwards(bottom: float) -> Iterator[float]:
    y = bottom - LINE / 2 - 3
    while True:
        yield y
        y -= LINE


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]


def marks(top: float, unit: str) -> list[float]:
    """Some four round values from 0 to `top`; round in powers of 1024 for bytes."""
    scale = 1.0
    while unit == "bytes" and top / scale >= 1024:
        scale *= 1024
    found = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(0, top / scale)
    return [mark * scale for mark in found if 0 <= mark * scale <= top]


def shown(value: float, unit: str) -> str:
    """A value on an axis, with its unit as Grafana calls it."""
    if unit == "percentunit":
        return f"{value * 100:g} %"
    if unit == "s" and 0 < value < 1:
        return f"{value * 1000:g} ms"
    step, prefixes = (1024.0, BINARY) if unit == "bytes" else (1000.0, DECIMAL)
    power = 0
    while unit != "s" and abs(value) >= step and power < len(prefixes) - 1:
        value, power = value / step, power + 1
    name = {"bytes": "B", "Bps": "B/s", "cps": "/s", "s": "s"}.get(unit, "")
    return f"{value:.4g} {prefixes[power]}{name}".strip()
