"""A soak's series as an SVG that can be read aloud: six panels over the rounds, and the kills."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

Curve = Sequence[tuple[float, float]]
"""(round, value)."""
Panels = Mapping[str, Mapping[str, Curve]]
"""Curves by panel and name."""

_WIDTH, _HEIGHT = 900, 900
_PANEL_WIDTH, _PANEL_HEIGHT = 380, 190
_LEFT, _TOP, _ACROSS, _DOWN = 60, 90, 440, 245
_COLOURS: Final = {
    "server: supervisor": ("#000000", ""),
    "server: superlink": ("#d55e00", ""),
    "server: serverapp": ("#b8860b", "6 3"),
    "client: supervisor": ("#595959", "2 3"),
    "client: worker": ("#0072b2", ""),
    "client: supernode": ("#007a5a", ""),
    "client: relay": ("#aa4a86", "6 3"),
}
"""Colour and dashes."""


def svg(panels: Panels, kills: Mapping[str, list[int]], rounds: int) -> str:
    """The drawing.

    Args:
        panels: curves by panel and name.
        kills: rounds in which a role was killed.
    """
    parts = list(_legend())
    for number, (name, curves) in enumerate(panels.items()):
        x, y = _LEFT + _ACROSS * (number % 2), _TOP + _DOWN * (number // 2)
        parts += _panel(x, y, name, curves, rounds)
        parts += _ticks(x, y, kills, rounds)
    return _document(panels, kills, rounds, parts)


def _panel(x: float, y: float, name: str, curves: Mapping[str, Curve], rounds: int) -> list[str]:
    top = _round_up(max((v for curve in curves.values() for _, v in curve), default=1.0))
    bottom = y + _PANEL_HEIGHT
    parts = [_text(x, y - 8, name, anchor="start", bold=True)]
    for i in range(5):
        at = bottom - _PANEL_HEIGHT * i / 4
        parts.append(
            f'<line x1="{x}" y1="{at:.1f}" x2="{x + _PANEL_WIDTH}" y2="{at:.1f}" stroke="#ddd"/>'
        )
        parts.append(_text(x - 6, at + 4, f"{top * i / 4:g}", anchor="end"))
    for i in range(5):
        round_ = rounds * i / 4
        parts.append(_text(x + _PANEL_WIDTH * i / 4, bottom + 16, f"{round_:g}"))
    for curve_name, curve in curves.items():
        points = " ".join(
            f"{x + _PANEL_WIDTH * r / rounds:.1f},{bottom - _PANEL_HEIGHT * v / top:.1f}"
            for r, v in curve
        )
        colour, dashes = _COLOURS[curve_name]
        style = f'stroke="{colour}" stroke-width="1.6"'
        style += f' stroke-dasharray="{dashes}"' if dashes else ""
        parts.append(f'<polyline points="{points}" fill="none" {style}/>')
    parts.append(f'<path d="M{x} {y}V{bottom}H{x + _PANEL_WIDTH}" fill="none" stroke="black"/>')
    return parts


def _ticks(x: float, y: float, kills: Mapping[str, list[int]], rounds: int) -> list[str]:
    """A short line below the axis for each kill; the server's is long."""
    bottom, parts = y + _PANEL_HEIGHT, []
    for role, found in kills.items():
        colour, width, high = ("#c00000", 2, 12) if role == "server" else ("#595959", 1, 5)
        for round_ in found:
            at = x + _PANEL_WIDTH * round_ / rounds
            parts.append(
                f'<line x1="{at:.1f}" y1="{bottom - high}" x2="{at:.1f}" y2="{bottom}" '
                f'stroke="{colour}" stroke-width="{width}"/>'
            )
    return parts


def _legend() -> list[str]:
    parts = []
    for number, (name, (colour, dashes)) in enumerate(_COLOURS.items()):
        x, y = _LEFT + 210 * (number % 4), 44 + 18 * (number // 4)
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        parts.append(
            f'<line x1="{x}" y1="{y - 4}" x2="{x + 26}" y2="{y - 4}" stroke="{colour}" '
            f'stroke-width="2.5"{dashed}/>'
        )
        parts.append(_text(x + 32, y, name, anchor="start"))
    return parts


def _round_up(most: float) -> float:
    """A round number of which a quarter is round, above `most`."""
    size = 10.0 ** math.floor(math.log10(max(most, 1e-9)))
    return next(s * size for s in (1, 2, 4, 8, 10, 20) if s * size >= 1.02 * most)


def _text(x: float, y: float, text: str, *, anchor: str = "middle", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{escape(text)}</text>'


def _document(
    panels: Panels,
    kills: Mapping[str, list[int]],
    rounds: int,
    parts: list[str],
) -> str:
    killed = ", ".join(f"{role} {len(found)} times" for role, found in sorted(kills.items()))
    title = f"Soak: {rounds} rounds with random kills"
    said = "; ".join(
        f"{panel}: " + ", ".join(_ends(name, curve) for name, curve in curves.items() if curve)
        for panel, curves in panels.items()
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'aria-labelledby="title desc" font-family="sans-serif" font-size="12">\n'
        f'<title id="title">{title}</title>\n'
        f'<desc id="desc">Killed: {killed}. First and last values, {escape(said)}.</desc>\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n'
        f'<text x="{_LEFT}" y="22" font-size="16" font-weight="bold">{title}</text>\n'
        + "\n".join(parts)
        + "\n"
        + _text(_WIDTH / 2, _HEIGHT - 12, "rounds; a role's mean over its parties; ticks: kills, "
                "long ones: of the server")
        + "\n</svg>\n"
    )  # fmt: skip


def _ends(name: str, curve: Curve) -> str:
    return f"{name} {curve[0][1]:.0f} to {curve[-1][1]:.0f}"
