"""Children for `test_ledger_crash`: `python -m tests.ledger_child`, told what to do by its stdin.

A line with a folder forks a child that releases vectors there until it is killed, and prints its
process id; `wait` prints the signal that ended it.
"""

import hashlib
import json
import os
import sys
from itertools import count
from pathlib import Path

from common.io.release import release
from common.io.vault import Vault
from tests.ledgers import charge, open_ledger


def append(path, line):
    """On disk when it returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, line.encode() + b"\n")
    os.fsync(descriptor)
    os.close(descriptor)


def work(folder):
    """Reserve, train, store, commit, send; the true figures go to files beside the folder."""

    def compute(reserved):
        append(folder.parent / "trained", str(reserved.seq))
        return os.urandom(5000)

    with open_ledger(folder) as ledger:
        vault = Vault(folder)
        for number in count(1):
            vector = release(ledger, vault, charge(number, target=1e9), (), compute)
            seq = ledger.attempts(charge(number))[-1].seq
            sent = json.dumps([seq, hashlib.sha256(vector).hexdigest()])
            append(folder.parent / "sent", sent)


def main():
    child = 0
    for line in sys.stdin:
        if line.strip() == "wait":
            _, status = os.waitpid(child, 0)
            print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, flush=True)  # noqa: T201
            continue
        child = os.fork()
        if not child:
            work(Path(line.strip()))
            os._exit(1)
        print(child, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
