"""Horizontal bars with intervals, and who was there in which round."""

from collections.abc import Iterator
from itertools import cycle
from typing import Final

from scripts.reporting.drawing import INK, WIDTH, framed, label, number, round_up, shortened
from scripts.reporting.page import Bar, Bars, Presence

_LEFT, _RIGHT = 210, 535
_TOP: Final = 8
_STEP: Final = 28
_THICK: Final = 18
_KINDS: Final = (("#0072b2", ""), ("#ffffff", ""), ("#c9c9c9", "4 2"), ("#ffffff", "1 3"))
"""Fill and dashes of the rim, in the order in which kinds appear."""
_MOST_NAME: Final = 30
_CELL: Final = 16


def bars_svg(bars: Bars, name: str) -> str:
    """The drawing."""
    top = bars.top or round_up(max((number(b.value) for b in bars.bars), default=1.0))
    bottom = _TOP + _STEP * len(bars.bars)
    parts = [*_grid(top, bottom), *_lines(bars, top)]
    parts.append(label((_LEFT + _RIGHT) / 2, bottom + 38, bars.across, "middle"))
    return framed(bars.title, bars_said(bars), name, bottom + 46, parts)


def bars_said(bars: Bars) -> str:
    """All of it: there are few values."""
    said = "; ".join(f"{bar.name} {bar.value.text}{_interval(bar)}" for bar in bars.bars)
    return f"{bars.across}: {said}."


def _interval(bar: Bar) -> str:
    return "" if bar.ends is None else f" ({bar.ends[0].text} to {bar.ends[1].text})"


def _x(value: float, top: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * min(max(value / top, 0.0), 1.0)


def _grid(top: float, bottom: float) -> Iterator[str]:
    for step in range(5):
        value = top * step / 4
        x = _x(value, top)
        yield f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>'
        yield label(x, bottom + 18, f"{value:g}", "middle")
    yield f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{_RIGHT}"/>'


def _lines(bars: Bars, top: float) -> Iterator[str]:
    kinds = dict(zip(dict.fromkeys(b.kind for b in bars.bars), cycle(_KINDS), strict=False))
    for index, bar in enumerate(bars.bars):
        y = _TOP + _STEP * index + (_STEP - _THICK) / 2
        end = _x(number(bar.value), top)
        fill, dashes = kinds[bar.kind]
        rim = f' stroke-dasharray="{dashes}"' if dashes else ""
        yield (
            f'<rect class="bar" x="{_LEFT}" y="{y:.1f}" width="{end - _LEFT:.1f}" '
            f'height="{_THICK}" fill="{fill}" stroke="{INK}"{rim}/>'
        )
        yield label(_LEFT - 8, y + 13, shortened(bar.name, _MOST_NAME), "end")
        if bar.ends is not None:
            low, high = (_x(number(ends), top) for ends in bar.ends)
            yield _whisker(low, high, y + _THICK / 2)
            end = max(end, high)
        yield label(end + 8, y + 13, bar.value.text + _interval(bar), "start")


def _whisker(low: float, high: float, y: float) -> str:
    path = f"M{low:.1f} {y - 5:.1f}v10M{low:.1f} {y:.1f}H{high:.1f}M{high:.1f} {y - 5:.1f}v10"
    return f'<path class="halo" d="{path}"/><path class="whisker" d="{path}"/>'


# --- presence


def presence_svg(presence: Presence, name: str) -> str:
    """The drawing: a full square was there, a crossed one was not."""
    step = min(float(_CELL), (WIDTH - _LEFT - 10) / max(1, len(presence.rounds)))
    bottom = _TOP + 24 * len(presence.present)
    parts = [part for row in enumerate(presence.present.items()) for part in _row(*row, step)]
    ends = (presence.rounds[0], presence.rounds[-1])
    for at, figure in zip((0, len(presence.rounds) - 1), ends, strict=True):
        parts.append(label(_LEFT + step * (at + 0.5), bottom + 14, figure.text, "middle"))
    parts.append(
        label(_LEFT, bottom + 34, "round: filled was in the sum, crossed was not", "start")
    )
    return framed(presence.title, presence_said(presence), name, bottom + 44, parts)


def presence_said(presence: Presence) -> str:
    """Who was missing, in words; the table says when."""
    missing = [name for name, there in presence.present.items() if not all(there)]
    return f"Missing in some round: {', '.join(missing) or 'nobody'}. The table has each round."


def _row(index: int, row: tuple[str, tuple[bool, ...]], step: float) -> Iterator[str]:
    name, there = row
    y = _TOP + 24 * index
    yield label(_LEFT - 8, y + 14, shortened(name, _MOST_NAME), "end")
    size = max(1.0, step - 3)
    for at, was in enumerate(there):
        x = _LEFT + step * at + (step - size) / 2
        look = 'class="there"' if was else 'class="missing"'
        yield f'<rect {look} x="{x:.1f}" y="{y + 2}" width="{size:.1f}" height="16"/>'
        if not was:
            yield f'<path class="cross" d="M{x:.1f} {y + 2}l{size:.1f} 16m0 -16l-{size:.1f} 16"/>'
