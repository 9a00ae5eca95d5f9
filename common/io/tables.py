"""Small tables and lists that people write."""

from pathlib import Path

from common.errors import DataError


def read_table(path: Path, remedy: str) -> str:
    """The text: UTF-8, with or without a byte order mark; line ends as on Unix.

    Raises:
        DataError: it can't be read, or is no UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"can't be read as UTF-8 text: {type(error).__name__}", place=str(path), remedy=remedy
        ) from None
