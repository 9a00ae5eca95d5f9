"""The institution's worker process: `python -m client.worker SITE`. Trusted, long-lived.

It alone opens data and encoder. It listens on its Unix socket and opens no network socket.
"""

import argparse
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from numbers import Number
from pathlib import Path
from typing import Any, Final

from client import worker_log
from client.audit import audited
from client.endpoint import group_id, require_member
from client.figures import SiteFigures
from client.guard import open_guard
from client.health import HealthDoor
from client.service import Handle, serve
from client.session import Party, Session, refuse_unexpected, worth_keeping
from client.site_paths import SitePaths
from client.sums import Sums, open_sums
from client.watch import Watch, Watches
from client.witness import Witness
from common.config.site import Site
from common.config.study import Study
from common.errors import FednerError, PolicyError
from common.io.configs import load_site, load_study
from common.io.datasets import load_sides
from common.io.encoders import resolve_encoder
from common.io.ledger_folder import Check
from common.io.standing import institution_standing
from common.io.withdrawn_file import reader_of
from common.model.ner import NerModel, set_threads
from common.policy import decide
from common.privacy.notice import notices

log = logging.getLogger("fedner.worker")

_SAY_EVERY_S: Final = 10.0


def make_session(
    site: Site,
    base: Path,
    watch: Watch | None = None,
    figures: SiteFigures | None = None,
    check_ledger: Check = lambda _state: None,
) -> Session:
    """Check the policy, then load encoder and data; who has withdrawn is left out.

    Args:
        base: folder of the site file, at which relative paths start.
        watch: told how each request fares.
        figures: told as well, and the site's own figures; `begin` says that all is ready.
        check_ledger: as of `open_guard`.

    Raises:
        PolicyError: the site's policy refuses the study; nothing was opened.
        BudgetError: the privacy ledger is in use or can't be trusted.
        IdentityError: the study has secure aggregation, and this site's key or roster does not
            stand; nothing was opened.
    """
    study, witness = load_study(base / site.study), Witness(site, base)
    decision = decide(study, site.policy, site.institution, witness.at_start())
    if not decision.allowed:
        raise PolicyError(
            str(decision),
            place=f"site {site.institution}",
            remedy="take part in another study, or change the site's policy on purpose",
        )
    for notice in notices(study):
        log.warning(notice)
    sums = None if study.secure is None else _open_sums(site, base, study)
    set_threads(site.threads)
    log.info("reading encoder and documents")
    folder, encoder = resolve_encoder(study.encoder.name, study.encoder.weights_sha256)
    sides = load_sides(site.data, study.task.labels, base)
    model = NerModel(folder, study, site.device)
    party = Party(
        name=site.institution,
        policy=site.policy,
        encoder=encoder.fingerprint,
        train=model.prepare(sides.train),
        test=model.prepare(sides.test),
    )
    for note, count in sorted(sides.notes.items()):
        log.info("reading the data: %s: %d", note, count)
    for side in ("train", "test"):
        for note, count in getattr(party, side).notes().items():
            log.info("preparing %s: %s: %d", side, note, count)
    guard = None
    if study.local_privacy is not None:
        folder, size = SitePaths.of(site, base).ledger, model.layout.size
        log.info("reading the privacy ledger")
        guard = open_guard(study, site.institution, site.policy, folder, size, check_ledger)
        log.info("privacy ledger: %s", guard.head)
    pace = _Pace()

    def step(done: int, total: int) -> None:
        pace.step(done, total)
        if figures is not None:
            figures.step(done, total)

    def report(kind: str, own: Mapping[str, Any]) -> None:
        _say(kind, own)
        if figures is not None:
            figures.report(kind, own)

    if figures is not None:
        ledger = None if guard is None else guard.state
        figures.begin(len(party.train.documents), len(party.test.documents), ledger)
    return Session(
        study,
        party,
        model,
        progress=step,
        report=report,
        guard=guard,
        sums=sums,
        witness=witness,
        read_withdrawn=reader_of(site, base),
        watch=Watches(*(w for w in (watch, figures) if w is not None)),
    )


def _open_sums(site: Site, base: Path, study: Study) -> Sums:
    standing = institution_standing(site, base, study)
    log.info("roster: %s", standing.roster.sha256)
    folder = SitePaths.of(site, base).sums
    signer = standing.identity.signer
    return open_sums(
        study, standing.roster, site.institution, signer, site.policy, folder, site.threads
    )


class _Pace:
    """A line in the log about every ten seconds of training."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def step(self, done: int, total: int) -> None:
        if time.monotonic() - self._said > _SAY_EVERY_S or done == total:
            self._said = time.monotonic()
            log.info("training: step %d of %d", done, total)


def _say(kind: str, figures: Mapping[str, Any]) -> None:
    numbers = (f"{k} {v:.4g}" for k, v in figures.items() if isinstance(v, Number))
    log.info("own %s: %s", kind, ", ".join(numbers))


def main(argv: list[str]) -> int:
    """Serve until SIGTERM or Ctrl-C; an exit code of `common.errors`."""
    parser = argparse.ArgumentParser(prog="python -m client.worker")
    parser.add_argument("site", type=Path)
    path: Path = parser.parse_args(argv).site
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold session secrets
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    worker_log.start(logging.WARNING)
    logging.getLogger("fedner").setLevel(logging.INFO)
    _quiet_transformers()
    try:
        _serve(load_site(path), path.parent)
    except FednerError as error:
        log.error("%s", error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _serve(site: Site, base: Path) -> None:
    paths = SitePaths.of(site, base)
    _log_to(paths)
    if site.relay_group is None:
        log.warning("ONE USER: worker and relay share an OS user; for development only")
    log.info("reading the audit log")
    study = load_study(base / site.study)
    figures = SiteFigures(study, site.institution, paths)
    with audited(site, base, study) as audit:
        group = None if site.relay_group is None else _group(site.relay_group)
        session = make_session(site, base, audit, figures, audit.check_ledger)
        answer = audit.answering(session.handle, lambda: session.ledger)
        answer = figures.answering(answer, lambda: session.ledger)
        _answer(paths, session, answer, group)


def _group(name: str) -> int:
    """The relay's group, which this process is in."""
    group = group_id(name)
    require_member(group, name)
    return group


def _answer(paths: SitePaths, session: Session, answer: Handle, group: int | None) -> None:
    """Serve until the process is told to end."""
    service = serve(
        paths.socket,
        answer,
        max_request_bytes=session.max_request_bytes,
        on_error=refuse_unexpected,
        keep=worth_keeping,
        relay_group=group,
    )
    with ExitStack() as stack:
        stack.callback(service.stop)
        if group is not None:
            stack.callback(HealthDoor(paths.health).close)
        log.info("ready")
        service.wait_for_termination()


def _log_to(paths: SitePaths) -> None:
    paths.state.mkdir(parents=True, exist_ok=True)
    paths.state.chmod(0o700)
    worker_log.add_file(paths.log("worker"))


def _quiet_transformers() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
