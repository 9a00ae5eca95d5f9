"""What the worker's reply cache keeps, and what it computes again."""

import time

from client.service import ReplyCache
from client.session import worth_keeping
from common.wire import Refusal, Reply, encode


def _reply(refusal: str = "", body: bytes = b"") -> bytes:
    return encode(
        Reply(kind="train", study="s", round=1, institution="a", refusal=refusal, body=body)
    )


def test_an_internal_error_is_not_given_again() -> None:
    answers = [_reply(Refusal.INTERNAL.value), _reply(body=b"update"), _reply(body=b"other")]
    calls: list[bytes] = []

    def handle(request: bytes) -> bytes:
        calls.append(request)
        return answers[len(calls) - 1]

    cache = ReplyCache(handle, lambda _error: b"", keep=worth_keeping)
    given = []
    for _ in range(3):
        given.append(cache.submit(b"request").result(10))
        time.sleep(0.2)  # a future's waiters wake before its callbacks have run
    cache.close()
    assert given == [answers[0], answers[1], answers[1]]
    assert len(calls) == 2


def test_a_refusal_for_good_is_worth_keeping_and_so_is_a_long_reply() -> None:
    assert worth_keeping(_reply(Refusal.STUDY.value))
    assert worth_keeping(_reply(body=bytes(1 << 17)))
    assert not worth_keeping(_reply(Refusal.INTERNAL.value))
    assert not worth_keeping(_reply(Refusal.SPENT.value))
    assert not worth_keeping(_reply(Refusal.POLICY.value))
