"""Draws a live view on a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

_A_SECOND: Final = 2


@contextmanager
def shown(view: Callable[[], RenderableType], console: Console) -> Iterator[bool]:
    """Keep a view drawn in the block, and its last state afterwards.

    A view that fails is shown as that, and ends nothing: what it watches is worth more.

    Yields:
        Whether it is drawn: only on a terminal.
    """
    if not console.is_terminal:
        yield False
        return
    live = Live(
        get_renderable=lambda: _drawn(view), console=console, refresh_per_second=_A_SECOND,
        vertical_overflow="crop",
    )  # fmt: skip
    with suppress(OSError):
        live.start()
    try:
        yield True
    finally:
        with suppress(OSError):
            live.stop()


def say(console: Console, line: str) -> None:
    """Print one line as it is; a terminal or file that does not take it ends nothing."""
    with suppress(OSError):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _drawn(view: Callable[[], RenderableType]) -> RenderableType:
    try:
        return view()
    except Exception as error:  # noqa: BLE001 - said in its place
        return Text(f"can't be drawn: {type(error).__name__}", style="red")
