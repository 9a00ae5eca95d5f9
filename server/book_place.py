"""Where the coordinator's receipt key and book are kept, looked at before a study is served.

Every institution pins the key with its first receipt (docs/ledger.md): under another key all of
them refuse, at once and for good. So a second one is never made where a first one may be.
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
    if begun and not (folder / KEY).exists():
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
        ConfigError: it does.
    """
    former = former_coordinator_state()
    if former is None or (folder / KEY).exists() or not os.path.lexists(former / KEY):
        return
    raise ConfigError(
        f"{STATE_VARIABLE} is set, and this coordinator's receipt key is still where it was kept "
        "without it: with a new one every site would refuse",
        place=str(former / KEY),
        remedy=f"while no study runs, move the folder: mv {former} {folder}",
    )
