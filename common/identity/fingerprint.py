"""Digits that two people compare by telephone."""

import hashlib
from typing import Final

GROUPS: Final = 8
"""Of five digits: 40 digits, 132 bits. Another key with the same ones takes 2^132 tries."""


def fingerprint(label: str, data: bytes) -> str:
    """40 decimal digits of SHA-256 over a label and the data, in groups of five.

    Digits are said alike in most languages and need no spelling. All of them must be compared:
    a key that agrees in the first and last groups alone is made in minutes.
    """
    digest = hashlib.sha256(label.encode("ascii") + b"\n" + data).digest()
    digits = f"{int.from_bytes(digest) % 10 ** (5 * GROUPS):0{5 * GROUPS}d}"
    return " ".join(digits[i : i + 5] for i in range(0, len(digits), 5))


def key_fingerprint(public_key: str) -> str:
    """Of an Ed25519 public key in hexadecimal."""
    return fingerprint("fedner key fingerprint v1", bytes.fromhex(public_key))


def roster_fingerprint(sha256: str) -> str:
    """Of a roster, by its hash in hexadecimal."""
    return fingerprint("fedner roster fingerprint v1", bytes.fromhex(sha256))
