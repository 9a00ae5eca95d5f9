"""The worker of a rehearsal: `python -m scripts.rehearsal_worker SITE FOLDER SOCKET`.

It is the site's worker, but for what `in_rehearsal` replaces. The site's policy, with all the facts
of a real start, decides first; what it refuses is not rehearsed.
"""

import argparse
import logging
import resource
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from client import worker_log
from client.service import serve
from client.session import refuse_unexpected, worth_keeping
from client.witness import Witness
from client.worker import make_session
from common.config.data import Data, Source
from common.config.site import Site
from common.errors import FednerError, PolicyError
from common.io.configs import load_site, load_study
from common.policy import decide
from scripts.console import quiet_libraries

IDENTITY: Final = "identity"
ROSTER_HASH: Final = "roster_sha256"
ROSTER: Final = "roster.yaml"
STATE: Final = "state"
log = logging.getLogger("fedner.rehearsal")


def in_rehearsal(site: Site, folder: Path, label_map: dict[str, str]) -> Site:
    """The site with made-up documents, and with state, identity and roster of the rehearsal's own.

    What can't hold with these is left out: sign-offs, the list of the withdrawn, the coordinator's
    pinned key, all of which the real start's decision has covered.

    Args:
        folder: the rehearsal's, absolute.
    """
    pin = folder / ROSTER_HASH
    keys = {"identity": None, "roster": None}
    if pin.is_file():
        keys = {"identity": str(folder / IDENTITY), "roster": str(folder / ROSTER)}
    policy = replace(
        site.policy,
        roster_sha256=pin.read_text("ascii").strip() if pin.is_file() else None,
        sign_offs=(),
        coordinator_key=None,
    )
    return replace(
        site,
        data=data_of(folder, label_map),
        state=str(folder / STATE),
        passphrase_file=None,
        sign_offs=None,
        exclude=None,
        policy=policy,
        **keys,
    )


def data_of(folder: Path, label_map: dict[str, str]) -> Data:
    """Both sides of made-up documents in a folder."""
    train, test = (
        Source(format="jsonl", path=str(folder / f"{side}.jsonl")) for side in ("train", "test")
    )
    return Data(train=train, test=test, label_map=label_map)


def require_allowed(site: Site, base: Path) -> None:
    """Decide as a real start would.

    Raises:
        PolicyError: the site's policy refuses the study.
    """
    study = load_study(base / site.study)
    decision = decide(study, site.policy, site.institution, Witness(site, base).at_start())
    if not decision.allowed:
        raise PolicyError(
            str(decision),
            place=f"site {site.institution}",
            remedy="`fedner client` would refuse as well: take part in another study, or change "
            "the site's policy on purpose",
        )


def main(argv: list[str]) -> int:
    """Serve until SIGTERM; an exit code of `common.errors`."""
    parser = argparse.ArgumentParser(prog="python -m scripts.rehearsal_worker")
    for name in ("site", "folder", "socket"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--label", action="append", default=[], help="FROM=TO")
    given = parser.parse_args(argv)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # as in the real one
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    worker_log.start(logging.ERROR, "rehearsal: %(message)s")
    quiet_libraries()
    try:
        labels = dict(pair.split("=", 1) for pair in given.label)
        _serve(load_site(given.site), given.site.parent, given.folder, given.socket, labels)
    except FednerError as error:
        log.error("%s", error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _serve(site: Site, base: Path, folder: Path, socket: Path, labels: dict[str, str]) -> None:
    require_allowed(site, base)
    (folder / STATE).mkdir(mode=0o700)
    session = make_session(in_rehearsal(site, folder, labels), base)
    logging.getLogger().setLevel(logging.WARNING)  # the study's notices were shown before
    service = serve(
        socket,
        session.handle,
        max_request_bytes=session.max_request_bytes,
        on_error=refuse_unexpected,
        keep=worth_keeping,
    )
    try:
        service.wait_for_termination()
    finally:
        service.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
