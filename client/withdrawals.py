"""Who has withdrawn, as the site's own file says at this moment, and their data taken out.

Guarantees:
    - The file is read anew each time; one that is missing, unreadable or malformed is an error.
    - What is taken out has no window, no tag and no document left in what is kept.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from common.config.site import Site
from common.data.withdrawn import Withdrawn, parse_withdrawn
from common.errors import DataError
from common.model.ner import Prepared

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
    """Reads the site's list; `None` if the site has none."""
    if site.exclude is None:
        return None
    path = base / site.exclude
    return lambda: read_withdrawn(path)


def without(prepared: Prepared, withdrawn: Withdrawn) -> Prepared:
    """The same less the documents of who has withdrawn; itself if there is none of them."""
    kept = [i for i, d in enumerate(prepared.documents) if not withdrawn.covers(d)]
    if len(kept) == len(prepared.documents):
        return prepared
    place = {old: new for new, old in enumerate(kept)}
    return replace(
        prepared,
        documents=tuple(prepared.documents[i] for i in kept),
        windows=tuple(
            replace(w, document=place[w.document]) for w in prepared.windows if w.document in place
        ),
        tags=tuple(prepared.tags[i] for i in kept),
    )
