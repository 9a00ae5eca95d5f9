"""What the options of `fedner budget` say, or why they say nothing."""

import re
from collections.abc import Sequence
from pathlib import Path

from common.errors import UsageError
from common.privacy.events import UNITS, Unit
from common.privacy.ledger_entries import MAX_TEXT
from common.privacy.ledger_recovery import Given


def read_file(path: Path) -> bytes:
    """Raises UsageError if it can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"can't be read: {error.strerror}",
            place=str(path),
            remedy="name a file that is there and that this user may read",
        ) from None


def key_in(text: str, option: str) -> str:
    """A public key, or that of a file. Raises UsageError."""
    if _is_file(text):
        text = read_file(Path(text)).decode("ascii", "replace").strip()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise UsageError(
            "expected a public key of 64 hexadecimal digits, or a file that holds one",
            place=f"{option} {text[:80]}",
            remedy="`fedner budget show` prints the institution's; a coordinator's stands in the "
            "`start` line of its metrics.jsonl, as `coordinator_key`; get each from its owner",
        )
    return text


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # far too long for a path
        return False


def reason_in(text: str) -> str:
    """A text that a ledger can keep. Raises UsageError."""
    if not 1 <= len(text.strip()) <= len(text) <= MAX_TEXT or not text.isprintable():
        raise UsageError(
            f"has {len(text)} characters, expected 1 to {MAX_TEXT} that can be printed",
            place="--reason",
            remedy='say in a sentence what happened: --reason "disk of 3 May failed"',
        )
    return text


def study_in(text: str) -> str:
    """A study's hash. Raises UsageError."""
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise UsageError(
            "expected a study's hash of 64 hexadecimal digits",
            place=f"--study {text[:80]}",
            remedy="`fedner config check study.yaml` prints it",
        )
    return text


def assumptions_in(texts: Sequence[str]) -> dict[Unit, Given]:
    """One for each unit that is named. Raises UsageError."""
    given: dict[Unit, Given] = {}
    for text in texts:
        unit, figures = _given(text)
        if unit in given:
            raise UsageError(
                f"there is a figure for {unit} already",
                place=f"--assume {text}",
                remedy="give one for each unit, the larger one",
            )
        given[unit] = figures
    return given


def _given(text: str) -> tuple[Unit, Given]:
    unit, _, figures = text.partition("=")
    epsilon, at, delta = figures.partition("@")
    try:
        given = Given(epsilon=float(epsilon), delta=float(delta) if at else None)
    except ValueError:
        given = None
    known = next((u for u in UNITS if u == unit), None)
    if known is None or given is None or not _is_sane(given):
        raise UsageError(
            "expected UNIT=EPSILON or UNIT=EPSILON@DELTA",
            place=f"--assume {text}",
            remedy=f"UNIT is one of {', '.join(UNITS)}; for example record=8@1e-5",
        )
    return known, given


def _is_sane(given: Given) -> bool:
    return 0 <= given.epsilon < float("inf") and (given.delta is None or 0 < given.delta < 1)
