"""What a trip holds of requests and replies: of either one at a time, however many take part."""

import gc
import os
import tracemalloc
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

from common.config.canonical import study_hash
from common.config.study import Study
from common.wire import Kind, Reply, Request, decode_request, encode
from server.asking import Asking
from server.audit import RunAudit
from server.exchange import NodeExchange
from server.mail import Letter, Pace
from server.progress import Progress
from server.run_dir import RunDir
from tests.roll_call import FACTS, a_study

SIZE = 1 << 21
NAMES = tuple(f"n{i}" for i in range(8))
STUDY = a_study(", ".join(NAMES))
HASH = study_hash(STUDY)


class Mail:
    """Makes each request's bytes, and each reply, when it is sent or fetched, and keeps neither."""

    def __init__(self, study: Study) -> None:
        self.names = dict(enumerate(study.federation.institutions))
        self.heads: dict[str, tuple[int, Request]] = {}

    def online(self) -> Collection[int]:
        return tuple(self.names)

    def send(
        self, kind: Kind, _round: int, requests: Mapping[int, Letter], _ttl: float, _most: int
    ) -> list[str]:
        sent = []
        for node, letter in requests.items():
            data = bytes(letter)
            request = decode_request(data)
            assert len(data) == len(letter)
            assert len(request.body) == (SIZE if kind == "train" else 0)
            assert request.sums == (self.names[node].encode() if kind == "train" else b"")
            sent.append(f"{kind} {node}")
            self.heads[sent[-1]] = (
                node,
                Request(kind=kind, study=request.study, round=request.round),
            )
        return sent

    def fetch(self, messages: Collection[str], most: int) -> Iterator[tuple[str, bytes]]:
        for message in messages:
            node, request = self.heads.pop(message)
            reply = Reply(
                kind=request.kind,
                study=request.study,
                round=request.round,
                institution=self.names[node],
                facts=FACTS if request.kind == "hello" else {},
                body=os.urandom(SIZE) if request.kind == "train" else b"",
            )
            data = encode(reply)
            del reply
            assert len(data) <= most
            yield message, data
            del data

    def drop(self, messages: Collection[str]) -> None:
        pass


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    run = RunDir.create(tmp_path / "run", "")
    exchange = NodeExchange(Mail(STUDY), STUDY, pace=Pace(sleep=lambda _: None))
    audit = RunAudit(run, STUDY, None)
    with audit:
        made = Asking(STUDY, exchange, audit, Progress(run.path), print, None, None)
        made.gather()
        yield made


def test_of_large_requests_and_replies_one_of_each_is_in_memory(asking: Asking) -> None:
    body, sums = os.urandom(SIZE), {name: name.encode() for name in NAMES}
    taken = []
    gc.collect()
    tracemalloc.start()
    answers = asking.ask(
        "train",
        1,
        body,
        sums,
        SIZE,
        lambda name, reply: taken.append((name, len(reply.body))),
        lambda: None,
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken == [(name, SIZE) for name in NAMES]
    assert answers.replied == NAMES
    assert answers.up > len(NAMES) * SIZE < answers.down
    assert peak < 5 * SIZE


def test_requests_of_one_model_share_it(asking: Asking) -> None:
    body = os.urandom(SIZE)
    letters = asking._requests("train", 1, body, {name: name.encode() for name in NAMES})
    assert all(letter.parts[1] is body for letter in letters.values())
    assert len({bytes(letter) for letter in letters.values()}) == len(NAMES)
    for name, letter in letters.items():
        request = decode_request(bytes(letter))
        assert (request.study, request.body, request.sums) == (HASH, body, name.encode())
