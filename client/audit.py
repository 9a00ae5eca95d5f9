"""The institution's audit log: `audit.jsonl` in the site's `state`, signed with its identity.

Guarantees:
    * A request is in the log before data are touched for it; its reply, or why it was refused,
      before anything leaves. A greeting, which needs no data, is there with its answer. So is, in a
      secure sum, a message that the coordinator did not sign, or that was answered before. One that
      it signed is checked first, and what must be remembered of it may be on disk before its entry.
    * A site that can't log refuses to work: the coordinator gets `internal-error` and no vector.
      Nothing is lost with it: a vector with noise is kept, and sent when the log works again.
    * Each reserve of the privacy ledger is there once, before the reply that it was made for; after
      a crash, with the next reply.
    * A ledger that has not what this log has seen of it does not start: see `check_ledger`.
    * How the process ended, and why it would not start, is the last entry, unless it was killed.

A request that was answered before and comes again in the same bytes gets the same reply from the
socket's memory, and is not there again. Of refusals and greetings that repeat, see
`common.audit.repeats`.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from client.ledger_seen import check_seen, spend_of
from client.service import Handle
from client.site_paths import SitePaths
from common.audit.choices import choices_of
from common.audit.entries import Body, Choice, Insecure, Reply, Request, Spend, Stop
from common.audit.errors import AuditError
from common.audit.repeats import Repeats
from common.audit.words import digest_of, name_of, reasons_of, sayable
from common.config.canonical import study_hash
from common.config.site import Site
from common.config.study import Study
from common.identity.signing import Signer
from common.io.audit_file import AuditFile
from common.io.standing import site_identity
from common.privacy.ledger_state import LedgerState
from common.wire import Kind, Refusal, encode, is_hash
from common.wire import Reply as WireReply
from common.wire import Request as WireRequest

log = logging.getLogger("fedner.worker")

Ledger = Callable[[], LedgerState | None]
"""The institution's privacy ledger as it stands; `None` without one."""


@dataclass(slots=True)
class _Exchange:
    """One request on its way through the session.

    Attributes:
        logged: whether it is in the log.
    """

    bytes: int
    sha256: str
    asked: Kind = "hello"
    round: int = 0
    study: str | None = None
    logged: bool = False
    code: str = ""
    reasons: tuple[str, ...] = field(default=(), repr=False)


class SiteAudit:
    """The log of one institution's worker: the `client.watch.Watch` of its session.

    Args:
        log: open.
        study: hash of the site's own.
    """

    def __init__(self, log: AuditFile, institution: str, study: str):
        self._log, self._name, self._study = log, institution, study
        self._repeats, self._lock = Repeats(), threading.Lock()
        self._now: _Exchange | None = None

    def answering(self, answer: Handle, ledger: Ledger) -> Handle:
        """`answer`, with each request and reply in the log. One request at a time.

        Args:
            answer: a session's, which this watches.
            ledger: of the same session.
        """

        def handle(data: bytes) -> bytes:
            self._now = now = _Exchange(bytes=len(data), sha256=digest_of(data))
            reply = answer(data)
            try:
                self._answered(now, reply, ledger())
            except AuditError as error:
                log.error("can't log, and so can't work: %s", error)
                return self._cannot(now)
            return reply

        return handle

    def check_ledger(self, state: LedgerState | None) -> None:
        """As `client.ledger_seen.check_seen`."""
        check_seen(self._log.chain, self._log.path, state)

    def heard(self, request: WireRequest) -> None:
        """Keep what is asked for the request's entry."""
        now = self._current()
        now.asked, now.round = request.kind, request.round
        now.study = request.study if is_hash(request.study) else None

    def working(self) -> None:
        """Write the request down.

        Raises:
            AuditError: it can't be written.
        """
        now = self._current()
        if now.asked != "hello":
            self._write(self._request(now))
            now.logged = True

    def refused(self, kind: Kind, round_: int, code: Refusal, why: str) -> None:
        """Keep the reason for the reply's entry."""
        now = self._current()
        now.asked, now.round, now.code = kind, round_, code.value
        now.reasons = sayable(why.splitlines())

    def insecure(self, *choices: Choice) -> None:
        """Write down what the process does without."""
        self._write(*(Insecure(choice=choice) for choice in choices))

    def stop(self, error: BaseException | None) -> None:
        """The last entries: what is still to be said of repeats, and how the process ends."""
        self._write(*self._repeats.over(), _stop(error))

    def _current(self) -> _Exchange:
        if self._now is None:
            raise AuditError("a session is watched that does not answer through this log")
        return self._now

    def _answered(self, now: _Exchange, reply: bytes, state: LedgerState | None) -> None:
        time_s = self._log.now()
        over = self._repeats.over(time_s)
        if not now.logged and self._repeats.is_one_more(now.asked, now.code, time_s):
            self._write(*over)
            return
        said = Reply(
            institution=self._name, asked=now.asked, round=now.round, bytes=len(reply),
            sha256=digest_of(reply), code=now.code, reasons=now.reasons,
            ledger="" if state is None or now.code else str(state.head),
        )  # fmt: skip
        request = [] if now.logged else [self._request(now)]
        self._write(*over, *request, *self._new_spends(state), said)
        if not now.logged:
            self._repeats.wrote(now.asked, now.code, self._log.chain.seq)

    def _new_spends(self, state: LedgerState | None) -> Iterator[Spend]:
        """The reserves that are not in this log."""
        if state is None:
            return
        last = self._log.chain.spend
        known = last.reserve if last and last.ledger == state.opened.ledger else 0
        for number in sorted(n for n in state.reserves if n > known):
            yield spend_of(state.reserves[number])

    def _request(self, now: _Exchange) -> Request:
        return Request(
            institution=self._name, asked=now.asked, round=now.round, study=now.study,
            bytes=now.bytes, sha256=now.sha256,
        )  # fmt: skip

    def _cannot(self, now: _Exchange) -> bytes:
        refusal = WireReply(
            kind=now.asked, study=self._study, round=now.round, institution=self._name,
            refusal=Refusal.INTERNAL.value,
        )  # fmt: skip
        return encode(refusal)

    def _write(self, *bodies: Body) -> None:
        with self._lock:  # the process may end while a request is computed
            self._log.append(*bodies)


@contextmanager
def audited(site: Site, base: Path, study: Study) -> Iterator[SiteAudit]:
    """The site's log, from the start of its worker to its end, whatever ends it.

    Args:
        base: folder of the site file, at which relative paths start.

    Raises:
        AuditError: it can't be written, is in use, or is not what it was.
        IdentityError: the site's identity can't be opened.
    """
    opened = AuditFile.open(
        SitePaths.of(site, base).state,
        side="site",
        name=site.institution,
        study=study_hash(study),
        roster=site.policy.roster_sha256,
        signer=_signer(site, base),
    )
    audit = SiteAudit(opened, site.institution, study_hash(study))
    try:
        audit.insecure(*_choices(site, study))
        yield audit
    except BaseException as error:
        _stop_anyhow(audit, error)
        raise
    else:
        audit.stop(None)
    finally:
        opened.close()


def _signer(site: Site, base: Path) -> Signer | None:
    return None if site.identity is None else site_identity(site.identity, site, base).signer


def _choices(site: Site, study: Study) -> Iterator[Choice]:
    yield from choices_of(study)
    if site.relay_group is None:
        yield "one-user"
    if site.authority is None:
        yield "no-tls"


def _stop(error: BaseException | None) -> Stop:
    if error is None:
        return Stop(outcome="finished")
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return Stop(outcome="stopped", error=name_of(error))
    return Stop(outcome="failed", error=name_of(error), reasons=reasons_of(error))


def _stop_anyhow(audit: SiteAudit, error: BaseException) -> None:
    try:
        audit.stop(error)
    except AuditError as failed:
        log.error("the end is not in the audit log: %s", failed)
