"""What all charts share: SVG without script or font of its own, with words for who can't see it."""

import math
from collections.abc import Iterable
from html import escape
from typing import Final

from scripts.reporting.figures import Figure

WIDTH: Final = 760
INK: Final = "#1a1a1a"
COLOURS: Final = ("#0072b2", "#b34700", "#00664b", "#8a3a6f", "#000000", "#595959")
"""With a contrast of at least 4.5 to white; nothing is told by colour alone."""


def framed(title: str, said: str, name: str, height: float, parts: Iterable[str]) -> str:
    """A drawing with its title and description.

    Args:
        name: unique on the page, for what labels it.
        parts: SVG, in which all that came from a run is escaped.
    """
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-labelledby="{name}-t {name}-d" '
        'xmlns="http://www.w3.org/2000/svg">'
        f'<title id="{name}-t">{escape(title)}</title>'
        f'<desc id="{name}-d">{escape(said)}</desc>' + "".join(parts) + "</svg>"
    )


def number(figure: Figure) -> float:
    """Its value; nothing counts as zero."""
    return float(figure.value) if isinstance(figure.value, int | float) else 0.0


def round_up(most: float) -> float:
    """A round number of which a quarter is round, not below `most`."""
    size = 10.0 ** math.floor(math.log10(max(most, 1e-9)))
    return next(s * size for s in (1, 1.2, 2, 3, 4, 5, 6, 8, 10, 20) if s * size >= most)


def label(x: float, y: float, text: str, anchor: str, colour: str = "") -> str:
    """Words in a drawing."""
    fill = f' fill="{colour}"' if colour else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{fill}>{escape(text)}</text>'


def shortened(text: str, most: int) -> str:
    """Cut at the end, and seen to be."""
    return text if len(text) <= most else text[: most - 1] + "…"
