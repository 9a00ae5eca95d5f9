"""Charts as SVG: curves, columns, bars, presence; readable in black and white and aloud."""

import math
from collections.abc import Iterator
from itertools import cycle
from typing import Final

from scripts.reporting.bars import bars_said, bars_svg, presence_said, presence_svg
from scripts.reporting.drawing import COLOURS, INK, framed, label, number, round_up
from scripts.reporting.page import Bars, Curve, Drawing, Plot, Presence, Stack

HEIGHT: Final = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 524, 20, 256
_NAME_GAP: Final = 15
_DASHES: Final = ("", "7 4", "2 3", "10 3 2 3", "", "4 2")
FILLS: Final = ("#00466e", "#7fb8dd", "#8a4b08", "#ffffff", "#6f6f6f", "#d9d9d9")
"""Of columns: each has a rim, and neighbours differ in lightness."""


def svg(drawing: Drawing, name: str) -> str:
    """The drawing.

    Args:
        name: unique on the page, for what labels it.
    """
    if isinstance(drawing, Bars):
        return bars_svg(drawing, name)
    if isinstance(drawing, Presence):
        return presence_svg(drawing, name)
    frame = _Frame(drawing)
    inner = _columns if isinstance(drawing, Stack) else _curves
    parts = [*_axes(frame, drawing), *inner(frame, drawing)]
    return framed(drawing.title, spoken(drawing), name, HEIGHT, parts)


def spoken(drawing: Drawing) -> str:
    """What a chart shows, for who does not see it."""
    if isinstance(drawing, Bars):
        return bars_said(drawing)
    if isinstance(drawing, Presence):
        return presence_said(drawing)
    parts = [_ends(name, curve) for name, curve in drawing.curves.items() if curve]
    return f"{drawing.up} over {drawing.across}. " + " ".join(parts) + " The table has all values."


def _ends(name: str, curve: Curve) -> str:
    (first, start), (last, end) = curve[0], curve[-1]
    if len(curve) == 1:
        return f"{name}: {start.text} at {first.text}."
    return f"{name}: {start.text} at {first.text}, {end.text} at {last.text}."


class _Frame:
    """From values to places."""

    def __init__(self, plot: Plot):
        points = [point for curve in plot.curves.values() for point in curve]
        self.is_stacked = isinstance(plot, Stack)
        self.first = min((number(x) for x, _ in points), default=0.0)
        self.last = max((number(x) for x, _ in points), default=1.0)
        self.step = (_RIGHT - _LEFT) / (self.last - self.first + 1)
        self.top = plot.top or round_up(self._most(plot))

    def _most(self, plot: Plot) -> float:
        if not self.is_stacked:
            return max((number(y) for c in plot.curves.values() for _, y in c), default=1.0)
        sums: dict[float, float] = {}
        for curve in plot.curves.values():
            for x, y in curve:
                sums[number(x)] = sums.get(number(x), 0.0) + number(y)
        return max(sums.values(), default=1.0)

    def x(self, value: float) -> float:
        if self.is_stacked:  # columns stand in the middle of their steps
            return _LEFT + self.step * (value - self.first + 0.5)
        span = self.last - self.first
        share = (value - self.first) / span if span else 0.5
        return _LEFT + (_RIGHT - _LEFT) * share

    def y(self, value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * min(max(value / self.top, 0.0), 1.0)


def _axes(frame: _Frame, plot: Plot) -> Iterator[str]:
    for step in range(5):
        value = frame.top * step / 4
        y = frame.y(value)
        yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_RIGHT}" y2="{y:.1f}"/>'
        yield label(_LEFT - 8, y + 4, plot.tick(value) if plot.tick else f"{value:g}", "end")
    for value in _ticks(frame):
        yield label(frame.x(value), _BOTTOM + 18, f"{value:g}", "middle")
    yield f'<path class="axis" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>'
    yield label((_LEFT + _RIGHT) / 2, HEIGHT - 8, plot.across, "middle")
    yield label(_LEFT, _TOP - 7, plot.up, "start")


def _ticks(frame: _Frame) -> list[float]:
    """Whole numbers, at most six."""
    span = int(frame.last - frame.first)
    step = max(1, math.ceil(span / 5))
    return [frame.first + i for i in range(0, span + 1, step)]


def _curves(frame: _Frame, plot: Plot) -> Iterator[str]:
    places = _places({n: frame.y(number(c[-1][1])) for n, c in plot.curves.items() if c})
    looks = cycle(zip(COLOURS, _DASHES, strict=True))
    for (name, curve), (colour, dashes) in zip(plot.curves.items(), looks, strict=False):
        if not curve:
            continue
        points = [(frame.x(number(x)), frame.y(number(y))) for x, y in curve]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        style = f'stroke="{colour}"' + (f' stroke-dasharray="{dashes}"' if dashes else "")
        yield f'<polyline class="curve" points="{line}" {style}/>'
        for x, y in points if len(points) <= 40 else points[-1:]:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>'
        yield _lead(points[-1][0] + 5, points[-1][1], places[name])
        said = f"{name} {curve[-1][1].text}"
        yield label(_RIGHT + 26, places[name] + 4, said, "start", colour)


def _columns(frame: _Frame, plot: Plot) -> Iterator[str]:
    """One upon the other; their names at the right, in their order, with the look of each."""
    heights: dict[float, float] = {}
    width = min(48.0, max(1.0, frame.step * 0.7))
    for (name, curve), fill in zip(plot.curves.items(), cycle(FILLS), strict=False):
        for across, up in curve:
            at, low = number(across), heights.get(number(across), 0.0)
            heights[at] = low + number(up)
            y = frame.y(heights[at])
            yield (
                f'<rect class="bar" x="{frame.x(at) - width / 2:.1f}" y="{y:.1f}" '
                f'width="{width:.1f}" height="{frame.y(low) - y:.1f}" fill="{fill}" '
                f'stroke="{INK}" stroke-width="{min(1.0, width / 8):.2g}"/>'
            )
        at = _BOTTOM - 22 * list(plot.curves).index(name)
        yield (
            f'<rect x="{_RIGHT + 14}" y="{at - 12}" width="12" height="12" fill="{fill}" '
            f'stroke="{INK}"/>'
        )
        yield label(_RIGHT + 32, at - 2, name, "start")


def _lead(x: float, y: float, to: float) -> str:
    return f'<path class="lead" d="M{x:.1f} {y:.1f}L{_RIGHT + 22} {to:.1f}"/>'


def _places(ends: dict[str, float]) -> dict[str, float]:
    """Heights of the names at the right, none on another."""
    placed: dict[str, float] = {}
    lowest = -math.inf
    for name in sorted(ends, key=lambda name: ends[name]):
        lowest = placed[name] = max(ends[name], lowest + _NAME_GAP)
    over = max(0.0, lowest - (_BOTTOM + 4))
    return {name: at - over for name, at in placed.items()}
