"""Who has withdrawn, as the site's own file says at this moment.

Guarantees:
    - The file is read anew each time; a missing, unreadable or malformed one is an error.
    - `own_sides` holds nobody who is listed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from common.config.site import Site
from common.data.withdrawn import Withdrawn, parse_withdrawn
from common.io.datasets import Sides, load_sides
from common.io.tables import read_table

ReadWithdrawn = Callable[[], Withdrawn]


def read_withdrawn(path: Path) -> Withdrawn:
    """The list as it is now.

    Raises:
        DataError: it can't be read, or is malformed.
    """
    text = read_table(path, "put the list of the withdrawn back; without it nothing is computed")
    return parse_withdrawn(text, str(path))


def reader_of(site: Site, base: Path) -> ReadWithdrawn | None:
    """Reads the site's list; `None` if the site has none.

    Args:
        base: folder of the site file, at which relative paths start.
    """
    if site.exclude is None:
        return None
    path = base / site.exclude
    return lambda: read_withdrawn(path)


def own_sides(site: Site, labels: Sequence[str], base: Path) -> Sides:
    """The site's documents in a study's labels, without those of who has withdrawn.

    Raises:
        DataError: unreadable data, or an unreadable list of the withdrawn.
    """
    sides, read = load_sides(site.data, labels, base), reader_of(site, base)
    if read is None:
        return sides
    listed = read()
    train, test = (
        tuple(d for d in side if not listed.covers(d)) for side in (sides.train, sides.test)
    )
    return replace(sides, train=train, test=test)
