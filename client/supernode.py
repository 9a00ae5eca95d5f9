"""Flower's SuperNode as `fedner client` starts it: the process ends when its main thread does.

Flower 1.41 sends itself SIGINT from each thread that a server refuses, as one does that was started
again. A second SIGINT breaks off the clean exit that the first began, and the thread that serves
the relay then keeps a process alive that is no node any more, and that nobody starts again.

Run as `python -P -m client.supernode`, with the arguments of flower-supernode.
"""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from common.io import flower_internals


def run(role: Callable[[], None]) -> NoReturn:
    """Run `role`, then end the process with its exit code, whatever its threads do."""
    code = 1
    try:
        role()
        code = 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    except BaseException:  # noqa: BLE001 - said, and then the process ends
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main(argv: Sequence[str]) -> NoReturn:
    """Run flower-supernode with these arguments."""
    run(lambda: flower_internals.main(["supernode", *argv]))


if __name__ == "__main__":
    main(sys.argv[1:])
