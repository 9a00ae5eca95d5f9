"""The coordinator's audit log: `audit.jsonl` in the run's folder, signed with its identity.

Guarantees:
    * A request is in the log before it leaves, a reply before anything is made of it.
    * Of a refusal it has the code, which is all that the coordinator learns.
    * A coordinator that can't log does not go on: the error ends the run, and `--resume` goes on
      once it can.
    * A disk that is full once vectors have come does not lose them for want of an entry: room for
      all entries of a sum is taken before anybody is asked for a vector, and given up when it is
      needed (`server.reserve`). Where it can't be taken, nobody is asked.
    * How the process ended is the last entry, unless it was killed.

Identities sign only studies with secure aggregation; in any other run nobody signs, and the log
says so.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from common.audit.choices import choices_of
from common.audit.entries import (
    Body,
    Choice,
    Insecure,
    Progress,
    Promise,
    Refusal,
    Reply,
    Request,
    Stop,
)
from common.audit.errors import AuditError, AuditStorageError
from common.audit.words import digest_of, name_of
from common.config.canonical import study_hash
from common.config.study import Study
from common.io.audit_file import AuditFile
from common.io.register_file import read_register
from common.io.standing import Standing
from common.wire import Kind
from common.wire import Reply as WireReply
from server.mail import Letter
from server.origin import ORIGIN, Origin
from server.reserve import RESERVE, Reserve
from server.run_dir import RunDir

log = logging.getLogger("fedner.server")

NAME: Final = "coordinator"
MALFORMED: Final = "malformed-reply"
"""Code of what came and is no reply."""

_ROOM: Final = 1 << 16
_ROOM_EACH: Final = 1 << 14
"""Bytes of a sum's entries: a request, a reply and a refusal in each trip, below 1 KiB each; the
rest is for what else is written meanwhile."""


class RunAudit:
    """The log of one run; open while it is entered.

    Args:
        standing: whose key signs and whose roster counts; nobody signs without.
    """

    def __init__(self, run: RunDir, study: Study, standing: Standing | None):
        self._run, self._study, self._standing = run, study, standing
        self._log: AuditFile | None = None
        n = len(study.federation.institutions)
        size = _ROOM + _ROOM_EACH * n
        self._reserve = Reserve(run.path / RESERVE, size, "the log of a sum", AuditStorageError)

    def __enter__(self) -> "RunAudit":
        standing = self._standing
        opened = AuditFile.open(
            self._run.path,
            side="coordinator",
            name=NAME,
            study=study_hash(self._study),
            roster=None if standing is None else standing.roster.sha256,
            signer=None if standing is None else standing.identity.signer,
        )
        try:
            opened.append(*(Insecure(choice=choice) for choice in self._choices()))
        except BaseException:
            opened.close()
            raise
        self._log = opened
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        opened, self._log = self._log, None
        if opened is None:
            return
        self._reserve.release()
        try:
            opened.append(_stop(error))
        except AuditError as failed:
            if error is None:
                raise
            log.error("the end is not in the audit log: %s", failed)
        finally:
            opened.close()

    def sent(self, kind: Kind, round_: int, requests: Mapping[str, Letter]) -> None:
        """Requests that are about to leave, by institution; if for vectors, with room for the rest.

        Raises:
            AuditError: the disk does not take them, or has not that room.
        """
        if kind in _VECTORS:
            self._reserve.hold()
        study = study_hash(self._study)
        self._append(
            Request(
                institution=name,
                asked=kind,
                round=round_,
                study=study,
                bytes=len(letter),
                sha256=digest_of(letter.head),
            )
            for name, letter in requests.items()
        )

    def came(
        self,
        kind: Kind,
        round_: int,
        answers: Mapping[str, bytes],
        replies: Mapping[str, WireReply],
    ) -> None:
        """What came back, by institution, and what of it is a reply."""
        self._append(
            Reply(
                institution=name,
                asked=kind,
                round=round_,
                bytes=len(data),
                sha256=digest_of(data),
                code=replies[name].refusal if name in replies else MALFORMED,
                ledger=replies[name].ledger if name in replies else "",
            )
            for name, data in answers.items()
        )

    def give_way(self) -> bool:
        """Give up the room that is kept, for another write that found the disk full; whether there
        was any."""
        return self._reserve.release()

    def event(self, event: str, figures: Mapping[str, Any]) -> None:
        """What an event of the metrics says, if an audit log says it too."""
        self._append(_of_event(event, figures))

    def _append(self, bodies: Iterator[Body]) -> None:
        if self._log is None:
            raise AuditError("the audit log is not open", place=str(self._run.path))
        entries = tuple(bodies)
        try:
            self._log.append(*entries)
        except AuditError as error:
            if not self._reserve.release():
                raise
            log.error("room that was kept for the audit log is given up: %s", error)
            self._log.append(*entries)

    def _choices(self) -> Iterator[Choice]:
        yield from choices_of(self._study)
        if not (self._run.path / ORIGIN).exists():
            yield "one-process"
            return
        federation = Origin.read(self._run).federation
        if not federation:
            yield "no-tls"
        elif read_register(Path(federation)).demo:
            yield "demo-keys"


_VECTORS: Final[frozenset[Kind]] = frozenset({"train", "evaluate"})
"""Requests for what is given once, perhaps."""


_ENDED: Final = ("revoked", "left", "not-enrolled")


def _of_event(event: str, figures: Mapping[str, Any]) -> Iterator[Body]:
    match event:
        case "start":
            yield Progress(what="begun", round=0)
            for name, said in figures.get("protection", {}).items():
                yield Promise(
                    institution=name, unit=said["unit"], epsilon=said["epsilon"],
                    delta=said["delta"],
                )  # fmt: skip
        case "resume":
            yield Progress(what="resumed", round=figures["round"])
        case "refusal":
            names = ("institution", "asked", "round", "code", "accused")
            yield Refusal(**{name: figures[name] for name in names if name in figures})
        case "abort":
            yield Progress(what="abort", round=figures["round"], rule=figures["rule"])
        case "evaluation_missing":
            yield Progress(what="evaluation-missing", round=figures["round"])
        case "institution" if figures["state"] in _ENDED:
            yield Progress(what=figures["state"], round=0, institutions=(figures["name"],))
        case "round" | "evaluation":
            institutions = tuple(figures["institutions"])
            yield Progress(what=event, round=figures["round"], institutions=institutions)


def _stop(error: BaseException | None) -> Stop:
    if error is None:
        return Stop(outcome="finished")
    stopped = isinstance(error, KeyboardInterrupt | SystemExit)
    return Stop(outcome="stopped" if stopped else "failed", error=name_of(error))
