"""Flame graphs as SVG text: a box for each function, as wide as the share of samples in it and in what it calls. Pure."""

import dataclasses
from collections.abc import Iterator
from xml.sax.saxutils import escape

from benchmarks.stacks import Stacks, is_python

WIDTH, ROW, TOP = 1200, 17, 52
LETTER = 6.2
"""How wide a letter is, about."""

LEAST_SHARE = 0.002
"""Narrower boxes are left out: they would be lines."""

OURS, OTHER_PYTHON, SYSTEM, NATIVE = "#e8674f", "#f2b35a", "#7fb58a", "#8fb3d1"
LEGEND = ((OURS, "scoring_runtime"), (OTHER_PYTHON, "other Python"), (NATIVE, "native code"), (SYSTEM, "libc, kernel"))


@dataclasses.dataclass
class _Box:
    samples: int = 0
    below: dict[str, "_Box"] = dataclasses.field(default_factory=dict)


def flame_graph(title: str, stacks: Stacks) -> str:
    """The outermost functions are on top. Hover over a box to read all of its name."""
    root = _Box()
    for stack, samples in sorted(stacks.items()):
        box = root
        box.samples += samples
        for frame in stack:
            box = box.below.setdefault(frame, _Box())
            box.samples += samples
    drawn = list(_drawn(root, 0.0, 0, root.samples))
    height = TOP + ROW * (1 + max((depth for depth, _ in drawn), default=0)) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="4" y="18" font-size="15" font-weight="bold">{escape(title)}</text>',
        *_legend(),
        *(text for _, text in drawn),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _legend() -> Iterator[str]:
    for place, (colour, what) in enumerate(LEGEND):
        x = 4 + 140 * place
        yield f'<rect x="{x}" y="28" width="12" height="12" fill="{colour}"/><text x="{x + 17}" y="38">{what}</text>'


def _drawn(parent: _Box, left: float, depth: int, total: int) -> Iterator[tuple[int, str]]:
    """(depth, SVG) of each box below, which stand side by side in the order of their names."""
    for name, box in sorted(parent.below.items()):
        share = box.samples / total
        width = share * WIDTH
        if share >= LEAST_SHARE:
            yield depth, _box(name, share, left, width, TOP + ROW * depth)
            yield from _drawn(box, left, depth + 1, total)
        left += width


def _box(name: str, share: float, left: float, width: float, top: int) -> str:
    letters = int((width - 4) / LETTER)
    shown = name if len(name) <= letters else name[: letters - 1] + "…" if letters > 3 else ""
    text = f'<text x="{left + 2:.1f}" y="{top + 12}">{escape(shown)}</text>' if shown else ""
    return (
        f"<g><title>{escape(name)}: {share:.1%}</title>"
        f'<rect x="{left:.1f}" y="{top}" width="{max(width - 0.5, 0.5):.1f}" height="{ROW - 1}" fill="{_colour(name)}"/>'
        f"{text}</g>"
    )


def _colour(name: str) -> str:
    if is_python(name):
        return OURS if "scoring_runtime/" in name else OTHER_PYTHON
    return SYSTEM if "(libc" in name or "(ld-linux" in name else NATIVE
