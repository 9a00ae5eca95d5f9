"""Masks and shares of one institution against the roster, as an SVG that can be read aloud."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

_WIDTH, _HEIGHT = 760, 460
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 620, 60, 400
_INSET = 26  # room for a number below the lowest point and left of the first
_MASKS, _SHARES, _GREY = "#0072b2", "#b34700", "#595959"


class Frame(NamedTuple):
    """From a roster's size and a number to a place: the first is logarithmic."""

    smallest: float
    largest: float
    most: float

    def x(self, n: float) -> float:
        span = max(math.log10(self.largest / self.smallest), 1e-9)
        left = _LEFT + _INSET
        return left + (_RIGHT - left) * math.log10(n / self.smallest) / span

    def y(self, number: float) -> float:
        bottom = _BOTTOM - _INSET
        return bottom - (bottom - _TOP) * number / self.most

    def curve(self, of: Callable[[float], float]) -> str:
        """A function's points, where they are inside."""
        span = self.largest / self.smallest
        steps = [self.smallest * span ** (i / 200) for i in range(201)]
        return self.points([(n, of(n)) for n in steps if of(n) <= self.most])

    def points(self, pairs: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{self.x(n):.1f},{self.y(number):.1f}" for n, number in pairs)


def svg(points: Sequence[tuple[int, int]]) -> str:
    """The drawing.

    Args:
        points: roster size, from 2, and masks of one institution; it deals two shares for each
            neighbour and keeps two, which is twice as many as it adds masks.
    """
    most = _step(2.0 * max(masks for _, masks in points)) * 6
    frame = Frame(points[0][0], points[-1][0], most)
    c = bound(points)
    parts = [
        *_axes(frame, [n for n, _ in points]),
        _line(frame.curve(lambda n: n), _GREY, "2 4"),
        _line(frame.curve(lambda n: c * math.log10(n)), _GREY, "8 4"),
        *_series(frame, [(n, 2 * masks) for n, masks in points], _SHARES, square=True),
        *_series(frame, points, _MASKS, square=False),
        *_names(frame, points, c),
    ]
    return _document(points, c, parts)


def bound(points: Sequence[tuple[int, int]]) -> float:
    """The smallest c for which c log10(n) lies below no number of masks."""
    return max(masks / math.log10(n) for n, masks in points)


def _step(most: float) -> float:
    """A round number of which six reach above `most`."""
    size = 10.0 ** math.floor(math.log10(most / 6))
    return next(s * size for s in (1, 2, 2.5, 5, 10) if 6 * s * size >= 1.05 * most)


def _axes(frame: Frame, sizes: Sequence[int]) -> list[str]:
    parts = []
    for i in range(7):
        number, y = frame.most * i / 6, frame.y(frame.most * i / 6)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{number:g}", anchor="end"))
    for n in sizes:
        x = frame.x(n)
        parts.append(
            f'<line x1="{x:.1f}" y1="{_BOTTOM}" x2="{x:.1f}" y2="{_BOTTOM + 5}" stroke="black"/>'
        )
        parts.append(_text(x, _BOTTOM + 20, f"{n:,}"))
    parts.append(f'<path d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}" fill="none" stroke="black"/>')
    middle = (_LEFT + _RIGHT) / 2
    parts.append(_text(middle, _BOTTOM + 46, "institutions on the roster, logarithmic scale"))
    place = (_TOP + _BOTTOM) / 2
    parts.append(
        f'<text transform="translate(20 {place:.0f}) rotate(-90)" text-anchor="middle">'
        "number, for one institution in one session</text>"
    )
    return parts


def _series(
    frame: Frame, points: Sequence[tuple[int, int]], colour: str, *, square: bool
) -> list[str]:
    """A line, its marks and their numbers."""
    parts = [_line(frame.points(points), colour)]
    for n, number in points:
        x, y = frame.x(n), frame.y(number)
        parts.append(
            f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="{colour}"/>'
            if square
            else f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>'
        )
        parts.append(_text(x, y - 10 if square else y + 20, str(number), colour=colour))
    return parts


def _names(frame: Frame, points: Sequence[tuple[int, int]], c: float) -> list[str]:
    """What each line is, right of its end."""
    last, masks = points[-1]
    parts = [
        _text(_RIGHT + 12, frame.y(2 * masks) + 4, "shares dealt", colour=_SHARES, anchor="start"),
        _text(_RIGHT + 12, frame.y(masks) + 4, "masks added", colour=_MASKS, anchor="start"),
        _text(_RIGHT + 12, frame.y(c * math.log10(last)) - 4, f"{c:.1f} log\u2081\u2080 n",
              colour=_GREY, anchor="start"),
    ]  # fmt: skip
    top = min(frame.most, last)
    name = "masks if all were neighbours: n"
    parts.append(_text(frame.x(top) + 8, frame.y(top) + 14, name, colour=_GREY, anchor="start"))
    return parts


def _line(points: str, colour: str, dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>'


def _text(x: float, y: float, text: str, *, colour: str = "black", anchor: str = "middle") -> str:
    """With a white edge, so that it can be read on a line."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" '
        f'stroke="white" stroke-width="3" paint-order="stroke">{escape(text)}</text>'
    )


def _document(points: Sequence[tuple[int, int]], c: float, parts: list[str]) -> str:
    title = "Secure sum: work of one institution against the number of institutions"
    listed = "; ".join(f"{n:,} institutions: {m} masks, {2 * m} shares" for n, m in points)
    desc = f"{listed}. No number of masks is above {c:.1f} times the decimal logarithm of n."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'aria-labelledby="title desc" font-family="sans-serif" font-size="13">\n'
        f'<title id="title">{title}</title>\n<desc id="desc">{desc}</desc>\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n'
        f'<text x="{_LEFT}" y="28" font-size="16" font-weight="bold">{title}</text>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )
