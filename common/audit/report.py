"""An audit log in words: who signed what, each entry in a line, and what two sides' logs lack."""

import datetime
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

from common.audit.codec import Entry
from common.audit.entries import Open, Reply, Request, Start
from common.audit.examine import Examined

_SHOWN_DIGITS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A run of entries under one key; `None`: nobody's."""

    key: str | None
    first: int
    last: int


def signers(entries: Sequence[Entry]) -> list[Signed]:
    """Which key stands for which entries, in order."""
    found: list[Signed] = []
    for entry in entries:
        body = entry.body
        if isinstance(body, Open | Start) and (not found or found[-1].key != body.public_key):
            found.append(Signed(key=body.public_key, first=entry.seq, last=entry.seq))
        elif found:
            found[-1] = replace(found[-1], last=entry.seq)
    return found


def time_of(entry: Entry) -> str:
    """As `2026-11-25 09:00:01`, in UTC."""
    return f"{datetime.datetime.fromtimestamp(entry.time, datetime.UTC):%Y-%m-%d %H:%M:%S}"


def told(entry: Entry) -> str:
    """What an entry says, in a line: each field that says something; hashes by their beginning."""
    body = entry.body
    said = ((field.name, _short(getattr(body, field.name))) for field in fields(body))
    return " ".join(f"{name}={value}" for name, value in said if value)


def lacks(site: Examined, coordinator: Examined) -> Iterator[str]:
    """What one side's log shows of the other's: a cut end, or lines that are not there.

    A `hello`, a refusal and what is sent again may rightly stand in one of them alone. So may what
    the site was asked before this run.
    """
    name = site.chain.opened.name if site.chain.opened else ""
    given = {e.body.sha256 for e in site.entries if isinstance(e.body, Reply)}
    asked = {e.body.sha256 for e in coordinator.entries if isinstance(e.body, Request)}
    studies = {e.body.study for e in coordinator.entries if isinstance(e.body, Start)}
    for entry, reply in _replies(coordinator, name):
        if reply.sha256 not in given:
            yield (
                f"line {entry.seq} of the coordinator's log: a reply of {name} to {reply.asked} of "
                f"round {reply.round}, which the site's log lacks"
            )
    met = False
    for entry, request in _requests(site, studies):
        known = request.sha256 in asked
        met = met or known
        if met and not known:
            yield (
                f"line {entry.seq} of the site's log: a request to {request.asked} in round "
                f"{request.round}, which the coordinator's log lacks: it was taken out there, or "
                "came from another run of the study, or not from this coordinator"
            )


def _replies(coordinator: Examined, name: str) -> Iterator[tuple[Entry, Reply]]:
    """An institution's, where it did as it was asked."""
    for entry in coordinator.entries:
        body = entry.body
        if isinstance(body, Reply) and body.institution == name and _is_work(body):
            yield entry, body


def _requests(site: Examined, studies: Container[str | None]) -> Iterator[tuple[Entry, Request]]:
    for entry in site.entries:
        body = entry.body
        if isinstance(body, Request) and body.study in studies and body.asked != "hello":
            yield entry, body


def _is_work(reply: Reply) -> bool:
    return not reply.code and reply.asked != "hello"


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + "; ".join(map(_short, value)) + "]" if value else ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = "" if value is None else str(value)
    return f"{text[:_SHOWN_DIGITS]}…" if _is_hash(text) else text


def _is_hash(text: str) -> bool:
    return len(text) in (32, 64) and not text.strip("0123456789abcdef")
