"""How the coordinator asks institutions and hears them. No Flower here.

Guarantees:
    * What is sent, and what comes back, is in the audit log first: see `server.audit`.
    * Whoever refused is named, with the code, where too few are left.
    * Receipts go with every request in which somebody works; while they wait for room on the disk,
      nobody is asked for a vector.
"""

import hashlib
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from common.config.canonical import study_hash
from common.config.study import Study
from common.errors import FederationError, ProtocolError
from common.io.standing import Standing
from common.wire import (
    RECEIPTS,
    Kind,
    Reply,
    Request,
    decode_reply,
    encode,
    in_parts,
    receipts_text,
)
from server.audit import RunAudit
from server.mail import Leaving, Letter, Lost, Take
from server.outcome import Take as TakeReply
from server.progress import AWAIT, Progress
from server.receipts import ReceiptBook, head_of
from server.sums import Answers

log = logging.getLogger("fedner.server")

Receipts = dict[str, dict[str, Any]]

TOO_LARGE: Final = "reply-too-large"
"""Code of a refusal that is the coordinator's own: more bytes than any reply can have."""
_HEAD_BYTES: Final = 1 << 16
"""Of a reply beside body and bundle, which has a few names and hashes."""


class Exchange(Protocol):
    """How requests reach institutions."""

    def discover(self, request: bytes, enough: Callable[[Mapping[str, Reply]], bool]) -> None:
        """Ask every node until `enough` says so or the deadline passes."""

    def present(self) -> Collection[str]:
        """Institutions that can be reached now."""

    def ask(
        self,
        kind: Kind,
        round_: int,
        requests: Mapping[str, Letter],
        most: int,
        take: Take,
        leaving: Leaving,
    ) -> None:
        """Hand over each reply, as soon as it is whole; who failed or is late has none (logged).

        Args:
            most: bytes of a reply.
        """


class Asking:
    """The requests of one study, and what they brought.

    Args:
        record: writes an event to the run's metrics.
        book: where heads of privacy ledgers are countersigned; absent without a mechanism.
        standing: the coordinator's key and roster, in a study with secure aggregation.
    """

    def __init__(
        self,
        study: Study,
        exchange: Exchange,
        audit: RunAudit,
        progress: Progress,
        record: Callable[..., None],
        book: ReceiptBook | None,
        standing: Standing | None,
    ):
        self._study, self._hash = study, study_hash(study)
        self._exchange, self._audit, self._progress = exchange, audit, progress
        self._record, self._book, self._standing = record, book, standing
        self._refused: dict[str, str] = {}

    def gather(self) -> dict[str, Reply]:
        """Greet every node; what each institution said of itself.

        Raises:
            FederationError: fewer answered than the study needs.
        """
        found: dict[str, Reply] = {}

        def enough(replies: Mapping[str, Reply]) -> bool:
            found.update(replies)
            return len(found) == len(self._study.federation.institutions)

        self._progress.stage("hello", AWAIT, 0)
        request = encode(self._request("hello", 0, self._receipts("hello")))
        letters = dict.fromkeys(self._study.federation.institutions, Letter((request,)))
        self._audit.sent("hello", 0, letters)
        self._exchange.discover(request, enough)
        self._audit.came("hello", 0, {name: encode(r) for name, r in found.items()}, found)
        self.require(found, "answered", 0)
        self._countersign({name: self._head(reply) for name, reply in found.items()})
        return found

    def tell_all(self, kind: Kind, round_: int, body: bytes, most: int, take: TakeReply) -> Answers:
        """The same request to the whole roster."""
        names = self._study.federation.institutions
        self._progress.stage(kind, kind, round_)
        return self.ask(kind, round_, body, dict.fromkeys(names, b""), most, take, lambda: None)

    def ask(
        self,
        kind: Kind,
        round_: int,
        body: bytes,
        sums: Mapping[str, bytes],
        most: int,
        take: TakeReply,
        leaving: Leaving,
    ) -> Answers:
        """As `server.outcome.Ask` has it: a reply is in the audit log before it is handed on."""
        if kind != "sum" and self._book is not None:
            self._book.keep()
        requests = self._requests(kind, round_, body, sums)
        self._audit.sent(kind, round_, requests)
        heads: dict[str, str] = {}
        refused: dict[str, str] = {}
        up = 0

        def hear(name: str, answer: bytes | Lost) -> None:
            nonlocal up
            if isinstance(answer, Lost):
                self._note_refusal(round_, name, kind, TOO_LARGE)
                return
            up += len(answer)
            reply = self._read(kind, round_, name, answer)
            if reply is None:
                return
            expected = (kind, self._hash, round_, name, "")
            said = (reply.kind, reply.study, reply.round, reply.institution, reply.refusal)
            if said == expected:
                heads[name] = self._head(reply)
                self._refused.pop(name, None)
                self._progress.answered(name)
                take(name, reply)
            else:
                if said[:-1] == expected[:-1]:  # in answer to this very request
                    refused[name] = reply.refusal
                self._note_refusal(round_, name, kind, reply.refusal)

        self._progress.asked(requests)
        try:
            self._exchange.ask(kind, round_, requests, most + _HEAD_BYTES, hear, leaving)
        finally:
            self._countersign(heads)
        down = sum(map(len, requests.values()))
        return Answers(replied=tuple(heads), refused=refused, down=down, up=up)

    def require(self, present: Collection[str], did: str, round_: int) -> None:
        """Raise FederationError if fewer are present than the study needs, naming who is not."""
        needed = self._study.federation.required
        if len(present) < needed:
            roster = self._study.federation.institutions
            codes = {n: f" (refused: {code})" for n, code in self._refused.items()}
            missing = ", ".join(n + codes.get(n, "") for n in roster if n not in present)
            raise FederationError(
                f"round {round_}: {len(present)} institutions {did}, the study needs {needed}; "
                f"missing: {missing}",
                remedy="read the log for who refused, failed or was late, and the logs at these "
                "institutions for why; then `fedner server --resume`",
            )

    def _read(self, kind: Kind, round_: int, name: str, answer: bytes) -> Reply | None:
        """What came, if it is a reply; noted in the audit log either way."""
        read: dict[str, Reply] = {}
        try:
            read[name] = decode_reply(answer)
        except ProtocolError as error:
            log.warning("round %d: %s: %s", round_, name, error.message)
        self._audit.came(kind, round_, {name: answer}, read)
        return read.get(name)

    def _note_refusal(self, round_: int, name: str, kind: Kind, code: str) -> None:
        """An institution that did not do as asked; without a code, it answered something else."""
        self._refused[name] = code or "unasked"
        log.warning("round %d: %s refused: %s", round_, name, code or "unasked")
        self._record("refusal", round=round_, institution=name, asked=kind, code=code)

    def _requests(
        self, kind: Kind, round_: int, body: bytes, sums: Mapping[str, bytes]
    ) -> dict[str, Letter]:
        """Requests; equal ones are one object, and the body is one in all."""
        digest, receipts = hashlib.sha256(body).hexdigest(), self._receipts(kind)
        made = {
            bundle: Letter(in_parts(self._request(kind, round_, receipts, body, bundle), digest))
            for bundle in dict.fromkeys(sums.values())
        }
        return {name: made[bundle] for name, bundle in sums.items()}

    def _receipts(self, kind: Kind) -> Receipts:
        """What a request brings: with the stages of a sum in which nobody works, none."""
        if self._book is None or kind == "sum":
            return {}
        return self._book.receipts(self._study.federation.institutions)

    def _request(
        self, kind: Kind, round_: int, receipts: Receipts, body: bytes = b"", sums: bytes = b""
    ) -> Request:
        request = Request(
            kind=kind, study=self._hash, round=round_, receipts=receipts, body=body, sums=sums
        )
        if self._standing is None or kind == "sum":
            return request
        signed = self._standing.identity.signer.sign(RECEIPTS, receipts_text(request))
        return replace(request, receipts_signature=signed)

    def _head(self, reply: Reply) -> str:
        keys = None if self._standing is None else self._standing.roster.public_keys
        return head_of(reply, keys)

    def _countersign(self, heads: Mapping[str, str]) -> None:
        if self._book is not None:
            self._book.see({name: head for name, head in heads.items() if head})
