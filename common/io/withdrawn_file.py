"""Who has withdrawn, as the site's own file says at this moment.

Guarantee: the file is read anew each time; a missing, unreadable or malformed one is an error.
"""

from collections.abc import Callable
from pathlib import Path

from common.config.site import Site
from common.data.withdrawn import Withdrawn, parse_withdrawn
from common.errors import DataError

ReadWithdrawn = Callable[[], Withdrawn]


def read_withdrawn(path: Path) -> Withdrawn:
    """The list as it is now.

    Raises:
        DataError: it can't be read, or is malformed.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"can't be read: {type(error).__name__}",
            place=str(path),
            remedy="put the list of the withdrawn back; without it nothing is computed",
        ) from None
    return parse_withdrawn(text.replace("\r\n", "\n"), str(path))


def reader_of(site: Site, base: Path) -> ReadWithdrawn | None:
    """Reads the site's list; `None` if the site has none.

    Args:
        base: folder of the site file, at which relative paths start.
    """
    if site.exclude is None:
        return None
    path = base / site.exclude
    return lambda: read_withdrawn(path)
