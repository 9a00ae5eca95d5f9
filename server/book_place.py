"""Where the coordinator's receipt key and book are kept, looked at before a study is served.

Every institution pins the key with its first receipt (docs/ledger.md): under another key all of
them refuse, at once and for good. So none is made while one lies in the other place that this
user's settings name, or while it can't be seen whether one does. A key that lies elsewhere is not
found: so the making of one is said aloud.
"""

import logging
import os
from pathlib import Path

from common.errors import ConfigError, FederationError
from common.io.home import STATE_VARIABLE, coordinator_state, former_coordinator_state
from server.receipts import KEY, ReceiptBook
from server.run_dir import RunDir

log = logging.getLogger("fedner.server")


def open_book(run: RunDir, folder: Path | None = None) -> ReceiptBook:
    """The book of a run's coordinator; made, with a key, if there is none.

    Args:
        folder: `coordinator_state()` if absent.

    Raises:
        ConfigError: the folder can't be used, or a key that is older is somewhere else.
        FederationError: the key that the run was begun with is gone, or the book is damaged.
        BudgetError: the key can't be used.
    """
    if folder is None:
        folder = coordinator_state()
        require_no_older_key(folder)
    begun = {e["coordinator_key"] for e in run.events("start") if "coordinator_key" in e}
    is_new = not _is_there(folder / KEY)
    if begun and is_new:
        raise FederationError(
            "the receipt key that the run was begun with is not here, and every site would refuse "
            "a new one",
            place=str(folder / KEY),
            remedy=f"is {STATE_VARIABLE} (or FEDNER_HOME) what it was? If the key is lost, "
            "a new study makes one; sites pin it (policy.coordinator_key), then --resume",
        )
    try:
        book = ReceiptBook(folder)
        book.receipts(())
    except OSError as error:
        raise ConfigError(
            f"the coordinator's receipt key and book can't be kept here: "
            f"{error.strerror or type(error).__name__}",
            place=str(folder),
            remedy=f"set {STATE_VARIABLE} to a folder that this user may write and that stays: "
            "docs/deployment.md, The coordinator",
        ) from None
    if is_new:
        log.warning(
            "NEW RECEIPT KEY, made in %s: every site of this study learns it, and refuses another "
            "from then on. If this coordinator had a key before, stop and set %s to its folder",
            folder,
            STATE_VARIABLE,
        )
    if begun - {book.public_key}:
        log.warning(
            "the run was begun with another receipt key than that in %s: sites refuse this one "
            "unless they pin it (policy.coordinator_key)",
            folder,
        )
    return book


def require_no_older_key(folder: Path) -> None:
    """Refuse to begin a key here while one lies where it was kept before.

    Raises:
        ConfigError: it does, or it can't be seen whether it does.
    """
    former = former_coordinator_state()
    if former is None or _is_there(folder / KEY) or not _is_there(former / KEY):
        return
    raise ConfigError(
        f"{STATE_VARIABLE} is set, and this coordinator's receipt key is still where it was kept "
        "without it: with a new one every site would refuse",
        place=str(former / KEY),
        remedy=f"while no study runs, move the folder: mv {former} {folder}",
    )


def _is_there(key: Path) -> bool:
    """Whether there is a file of this name; what can't be looked at may be one.

    Raises:
        ConfigError: it can't be seen.
    """
    try:
        os.lstat(key)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise ConfigError(
            "it can't be seen whether a receipt key of this coordinator lies here, and under "
            f"another every site would refuse: {error.strerror or type(error).__name__}",
            place=str(key),
            remedy="look as root; if one does, move its folder to where this user's is "
            "(docs/deployment.md, The coordinator), if none does, remove the folder; or let this "
            "user look into it",
        ) from None
    return True
