"""A line chart as SVG: no script, no network, colours from the page's style sheet, a line's name at its end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 118, 12, 30
LABEL_HEIGHT = 13
DASHES = ("", "6 3", "2 3", "8 3 2 3")


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        name: at its end.
        style: a number: its colour (class ``c0`` to ``c5``) and its dashes.
        values: one by point; None where there is none.
    """

    name: str
    style: int
    values: tuple[float | None, ...]


def line_chart(points: Sequence[str], lines: Sequence[Line], title: str) -> str:
    """Lines over named points, on a logarithmic scale that has a place for zero.

    Args:
        points: names of the places on the x axis.
        title: for whoever cannot see it.
    """
    values = [value for line in lines for value in line.values if value is not None]
    top = max(values, default=1.0)
    scale = _Scale(max(top, 1.0))
    x = [LEFT + i * (WIDTH - LEFT - RIGHT) / max(1, len(points) - 1) for i in range(len(points))]
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        *(_gridline(scale.y(tick), _short(tick)) for tick in scale.ticks()),
        *(f'<text class="axis" x="{at:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{escape(name)}</text>'
          for at, name in zip(x, points)),
    ]  # fmt: skip
    parts += [_path(line, x, scale) for line in lines]
    parts += _labels(lines, scale)
    return "".join([*parts, "</svg>"])


class _Scale:
    def __init__(self, top: float) -> None:
        # log(1 + value): zero is at the bottom.
        self._top = math.log10(1 + top)
        self._decades = math.ceil(self._top)

    def y(self, value: float) -> float:
        share = math.log10(1 + max(0.0, value)) / self._top
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def ticks(self) -> list[float]:
        step = max(1, self._decades // 4)
        return [0.0, *(10.0**n for n in range(0, self._decades + 1, step) if math.log10(1 + 10.0**n) <= self._top)]


def _gridline(y: float, label: str) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="axis" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    )


def _path(line: Line, x: Sequence[float], scale: _Scale) -> str:
    points = [(at, scale.y(value)) for at, value in zip(x, line.values) if value is not None]
    if not points:
        return ""
    route = " ".join(f"{at:.1f},{y:.1f}" for at, y in points)
    dash = DASHES[line.style // 6 % len(DASHES)]
    dots = "".join(f'<circle class="c{line.style % 6} dot" cx="{at:.1f}" cy="{y:.1f}" r="2.5"/>' for at, y in points)
    name = escape(f"{line.name}: {', '.join(_short(v) for v in line.values if v is not None)}")
    style = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<g><title>{name}</title><polyline class="c{line.style % 6}" points="{route}"{style}/>{dots}</g>'


def _labels(lines: Sequence[Line], scale: _Scale) -> list[str]:
    # Names at the ends of the lines, pushed apart; lines that end at one height share a label's neighbourhood.
    ended = [(line.values[-1], line) for line in lines]
    ends = sorted(((scale.y(v), line) for v, line in ended if v is not None), key=lambda end: end[0])
    places: list[float] = []
    for y, _ in ends:
        places.append(max(y, places[-1] + LABEL_HEIGHT) if places else max(y, TOP))
    overflow = (places[-1] - (HEIGHT - BOTTOM + 6)) if places else 0
    if overflow > 0:
        places[-1] -= overflow
        for i in range(len(places) - 2, -1, -1):
            places[i] = min(places[i], places[i + 1] - LABEL_HEIGHT)
    left = WIDTH - RIGHT
    return [
        f'<line class="lead" x1="{left + 3}" y1="{y:.1f}" x2="{left + 13}" y2="{at:.1f}"/>'
        f'<text class="t{line.style % 6} name" x="{left + 16}" y="{at + 4:.1f}">{escape(line.name)}</text>'
        for (y, line), at in zip(ends, places)
    ]


def _short(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"
