"""A node's signature that is sent again: inside Flower's time for it, outside, from the future."""

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE
from flwr.supercore.date import now

from server.limits import Limits
from tests.gates import PULL, Knocker, make_certificates, opened, signed, status

OVER_S = TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Knocker]:
    certificates: Path = make_certificates(tmp_path_factory.mktemp("gate"))
    with opened(certificates, Limits()) as found:
        yield found


def sent(door: Knocker, proof: dict[str, str], body: bytes = b"") -> int:
    """The answer to a request with a signature that was made elsewhere."""
    fields = [f"{name}: {value}" for name, value in proof.items()]
    lines = (
        f"POST {PULL} HTTP/1.1",
        "host: x",
        "connection: close",
        f"content-length: {len(body)}",
        *fields,
        "",
        "",
    )
    return status(door.send("\r\n".join(lines).encode() + body))


def ago(door: Knocker, seconds: float) -> dict[str, str]:
    return signed(door.key, now() - datetime.timedelta(seconds=seconds))


def test_flowers_time_for_a_signature_is_305_seconds() -> None:
    assert OVER_S == 305


def test_inside_its_time_a_signature_counts_again_and_for_any_body(door: Knocker) -> None:
    """docs/provisioning.md, not covered: TLS hides it on its way, and secure sums are signed."""
    proof = ago(door, OVER_S - 30)
    reached = len(door.app.seen)
    assert [sent(door, proof), sent(door, proof, b"another body")] == [200, 200]
    assert [body for _, _, body in door.app.seen[reached:]] == [b"", b"another body"]


@pytest.mark.parametrize("seconds", [OVER_S + 1, 3600, -SYSTEM_TIME_TOLERANCE - 3, -3600])
def test_outside_of_it_and_from_the_future_it_does_not(door: Knocker, seconds: int) -> None:
    reached = len(door.app.seen)
    assert sent(door, ago(door, seconds), b"body") == 401
    assert len(door.app.seen) == reached
