"""Draws a live view on a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live

_A_SECOND: Final = 2


@contextmanager
def shown(view: Callable[[], RenderableType], console: Console) -> Iterator[bool]:
    """Keep a view drawn in the block, and its last state afterwards.

    Yields:
        Whether it is drawn: only on a terminal.
    """
    if not console.is_terminal:
        yield False
        return
    with Live(
        get_renderable=view, console=console, refresh_per_second=_A_SECOND,
        vertical_overflow="crop",
    ):  # fmt: skip
        yield True
