"""Line charts as SVG: no script, no font of their own, readable in black and white and aloud."""

import math
from collections.abc import Iterator
from html import escape
from itertools import cycle
from typing import Final

from scripts.reporting.figures import Figure
from scripts.reporting.page import Curve, Plot

WIDTH: Final = 720
HEIGHT: Final = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 540, 20, 256
_NAME_GAP: Final = 15
_LINES: Final = (
    ("#0072b2", ""),
    ("#b34700", "7 4"),
    ("#00664b", "2 3"),
    ("#8a3a6f", "10 3 2 3"),
    ("#000000", ""),
    ("#595959", "4 2"),
)
"""Colours with a contrast of at least 4.5 to white, told apart by dashes too."""


def svg(plot: Plot, name: str) -> str:
    """The drawing.

    Args:
        name: unique on the page, for what labels it.
    """
    frame = _Frame(plot)
    parts = [*_axes(frame, plot), *_curves(frame, plot)]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{name}-t {name}-d" '
        'xmlns="http://www.w3.org/2000/svg">'
        f'<title id="{name}-t">{escape(plot.title)}</title>'
        f'<desc id="{name}-d">{escape(spoken(plot))}</desc>' + "".join(parts) + "</svg>"
    )


def spoken(plot: Plot) -> str:
    """What the chart shows, for who does not see it."""
    parts = [_ends(name, curve) for name, curve in plot.curves.items() if curve]
    return f"{plot.up} over {plot.across}. " + " ".join(parts) + " The table has all values."


def _ends(name: str, curve: Curve) -> str:
    (first, start), (last, end) = curve[0], curve[-1]
    return f"{name}: {start.text} at {first.text}, {end.text} at {last.text}."


class _Frame:
    """From values to places."""

    def __init__(self, plot: Plot):
        points = [point for curve in plot.curves.values() for point in curve]
        self.first = min((_number(x) for x, _ in points), default=0.0)
        self.last = max((_number(x) for x, _ in points), default=1.0)
        most = max((_number(y) for _, y in points), default=1.0)
        self.top = plot.top or _round_up(most)

    def x(self, value: float) -> float:
        span = self.last - self.first
        share = (value - self.first) / span if span else 0.5
        return _LEFT + (_RIGHT - _LEFT) * share

    def y(self, value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * min(max(value / self.top, 0.0), 1.0)


def _number(figure: Figure) -> float:
    return float(figure.value or 0)


def _round_up(most: float) -> float:
    """A round number of which a quarter is round, not below `most`."""
    size = 10.0 ** math.floor(math.log10(max(most, 1e-9)))
    return next(s * size for s in (1, 2, 4, 8, 10, 20) if s * size >= most)


def _axes(frame: _Frame, plot: Plot) -> Iterator[str]:
    for step in range(5):
        value = frame.top * step / 4
        y = frame.y(value)
        yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_RIGHT}" y2="{y:.1f}"/>'
        yield _text(_LEFT - 8, y + 4, f"{value:g}", "end")
    for value in _ticks(frame):
        yield _text(frame.x(value), _BOTTOM + 18, f"{value:g}", "middle")
    yield f'<path class="axis" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>'
    yield _text((_LEFT + _RIGHT) / 2, HEIGHT - 8, plot.across, "middle")
    yield _text(_LEFT, _TOP - 7, plot.up, "start")


def _ticks(frame: _Frame) -> list[float]:
    """Whole numbers, at most six."""
    span = int(frame.last - frame.first)
    step = max(1, math.ceil(span / 5))
    return [frame.first + i for i in range(0, span + 1, step)]


def _curves(frame: _Frame, plot: Plot) -> Iterator[str]:
    places = _places(frame, plot)
    for (name, curve), (colour, dashes) in zip(plot.curves.items(), cycle(_LINES), strict=False):
        if not curve:
            continue
        points = [(frame.x(_number(x)), frame.y(_number(y))) for x, y in curve]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        style = f'stroke="{colour}"' + (f' stroke-dasharray="{dashes}"' if dashes else "")
        yield f'<polyline class="curve" points="{line}" {style}/>'
        for x, y in points if len(points) <= 40 else points[-1:]:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>'
        if len(plot.curves) > 1:
            at = places[name]
            yield (
                f'<path class="lead" d="M{points[-1][0] + 5:.1f} {points[-1][1]:.1f}'
                f'L{_RIGHT + 22} {at:.1f}"/>'
            )
            yield _text(_RIGHT + 26, at + 4, f"{name} {curve[-1][1].text}", "start", colour)


def _places(frame: _Frame, plot: Plot) -> dict[str, float]:
    """Heights of the names at the right, none on another."""
    ends = {name: frame.y(_number(c[-1][1])) for name, c in plot.curves.items() if c}
    order = sorted(ends, key=lambda name: ends[name])
    placed: dict[str, float] = {}
    lowest = -math.inf
    for name in order:
        lowest = placed[name] = max(ends[name], lowest + _NAME_GAP)
    over = max(0.0, lowest - (_BOTTOM + 4))
    return {name: at - over for name, at in placed.items()}


def _text(x: float, y: float, text: str, anchor: str, colour: str = "") -> str:
    fill = f' fill="{colour}"' if colour else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{fill}>{escape(text)}</text>'
