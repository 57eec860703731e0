"""Line plots on logarithmic axes, as SVG text. Pure: the same numbers give the same bytes, so that a test can compare."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 800, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 240, 40, 50
COLOURS = (
    *("#0b6e99", "#f08a80", "#7a3e00", "#d9730d", "#448361", "#9065b0", "#cb912f", "#64748b", "#ad1a72", "#1b9e9e"),
    *("#111111", "#999999"),
)
OURS = "#d00000"


@dataclasses.dataclass(frozen=True)
class Line:
    """A line through points, and how it is drawn."""

    name: str
    points: Sequence[tuple[float, float]]
    emphasised: bool = False
    colour: int = 0
    """Its place among COLOURS."""
    dashed: bool = False
    marked: tuple[float, float] | None = None
    """A point of it that stands out."""


def plot(title: str, x_label: str, y_label: str, lines: Sequence[Line], x_limit: float | None = None) -> str:
    """Lines over two logarithmic axes. Points that are not positive cannot be shown, and are left out.

    x_limit: a value that is drawn from top to bottom, where the axis holds it.
    """
    shown = [dataclasses.replace(line, points=[(x, y) for x, y in line.points if x > 0 and y > 0]) for line in lines]
    shown = [line for line in shown if line.points]
    xs = [x for line in shown for x, _ in line.points] or [1.0]
    ys = [y for line in shown for _, y in line.points] or [1.0]
    x_axis, y_axis = _Axis.around(xs, LEFT, WIDTH - RIGHT), _Axis.around(ys, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 22, title, size=15),
        *_grid(x_axis, y_axis),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x_label, anchor="middle"),
        f'<g transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2:g}) rotate(-90)">{_text(0, 0, y_label, anchor="middle")}</g>',
    ]
    if x_limit is not None and x_axis.least <= x_limit <= x_axis.most:
        x = x_axis.place(x_limit)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#111" stroke-dasharray="2 3"/>'
        )
    for number, line in enumerate(shown):
        colour = OURS if line.emphasised else COLOURS[line.colour % len(COLOURS)]
        width = 3 if line.emphasised else 1.5
        places = [(x_axis.place(x), y_axis.place(y)) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dashes = ' stroke-dasharray="5 4"' if line.dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        if line.marked is not None:
            x, y = x_axis.place(line.marked[0]), y_axis.place(line.marked[1])
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        top = TOP + 8 + 18 * number
        parts.append(f'<rect x="{WIDTH - RIGHT + 16}" y="{top - 9}" width="12" height="12" fill="{colour}"/>')
        parts.append(_text(WIDTH - RIGHT + 34, top + 1, line.name))
    return "\n".join([*parts, "</svg>"]) + "\n"


@dataclasses.dataclass(frozen=True)
class _Axis:
    """From a value to a place on the page."""

    least: float
    most: float
    start: float
    end: float

    @classmethod
    def around(cls, values: Iterable[float], start: float, end: float) -> "_Axis":
        """An axis that begins and ends at a power of ten, or twice or five times one."""
        ordered = sorted(values)
        return cls(_rounded(ordered[0], -1), _rounded(ordered[-1], 1), start, end)

    def place(self, value: float) -> float:
        share = (math.log(value) - math.log(self.least)) / (math.log(self.most) - math.log(self.least))
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        powers = range(math.floor(math.log10(self.least)), math.ceil(math.log10(self.most)) + 1)
        steps = (1,) if self.most / self.least > 1e4 else (1, 2, 5)
        return [
            step * 10.0**power for power in powers for step in steps if self.least <= step * 10.0**power <= self.most
        ]


def _rounded(value: float, direction: int) -> float:
    """The next of 1, 2, 5, 10, ... strictly below (direction -1) or above (1)."""
    power = math.floor(math.log10(value))
    steps = [step * 10.0**exponent for exponent in (power - 1, power, power + 1) for step in (1, 2, 5)]
    return max(step for step in steps if step < value) if direction < 0 else min(step for step in steps if step > value)


def _grid(x_axis: _Axis, y_axis: _Axis) -> list[str]:
    parts = []
    for value in x_axis.ticks():
        x = x_axis.place(value)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        parts.append(_text(x, HEIGHT - BOTTOM + 16, _short(value), anchor="middle"))
    for value in y_axis.ticks():
        y = y_axis.place(value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, y + 4, _short(value), anchor="end"))
    return parts


def _short(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int | None = None) -> str:
    font = "" if size is None else f' font-size="{size}" font-weight="bold"'
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{font}>{escape(text)}</text>'
