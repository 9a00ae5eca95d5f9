"""A federation's register and the files that follow from it, in the coordinator's folder.

register.json      every institution that is or was enrolled
nodes/NAME.pub     node keys that Flower may accept: those of the approved, nobody else's
revoked/N.pub      node keys that it must refuse
roster.yaml        once every institution of the study is approved
"""

from pathlib import Path
from typing import Final

from common.errors import IdentityError
from common.identity.enrolment import EnrolmentRequest, Register
from common.io.atomic import write_bytes

REGISTER: Final = "register.json"
NODES: Final = "nodes"
REVOKED: Final = "revoked"
MAX_BYTES: Final = 1 << 20


def read_register(folder: Path) -> Register:
    """The register of a federation's folder.

    Raises:
        IdentityError: missing or damaged.
    """
    path = folder / REGISTER
    try:
        return Register.from_bytes(_read(path))
    except IdentityError as error:
        remedy = error.remedy or "give the folder that `fedner provision` made"
        raise IdentityError(error.message, place=str(path), remedy=remedy) from None


def read_request(path: Path) -> EnrolmentRequest:
    """A request's file.

    Raises:
        IdentityError: unreadable, malformed, or not signed as it must be.
    """
    try:
        return EnrolmentRequest.from_bytes(_read(path))
    except IdentityError as error:
        raise IdentityError(error.message, place=str(path), remedy=error.remedy) from None


def write_register(folder: Path, register: Register) -> None:
    """Write the register, then node keys; keys that count no more are gone from `nodes` first.

    Run again with the same register after a crash, or where a file is missing or another, it leaves
    the folders as the first run would have: in `nodes` what the register says and no other file.

    Raises:
        IdentityError: a folder lies in `nodes`; nothing was written.
    """
    for path in (folder / NODES).glob("*/"):
        raise IdentityError(
            "a folder among the keys of nodes", place=str(path), remedy="move it elsewhere"
        )
    write_bytes(folder / REGISTER, register.to_bytes())
    for name in (NODES, REVOKED):
        (folder / name).mkdir(exist_ok=True)
    kept = {f"{name}.pub" for name in register.approved}
    for path in (folder / NODES).iterdir():
        if path.name not in kept:  # a write's that a crash broke off, too
            path.unlink()
    for name, request in register.approved.items():
        write_bytes(folder / NODES / f"{name}.pub", f"{request.node_key} {name}\n".encode())
    for number, request in enumerate(register.ended):
        line = f"{request.node_key} {request.name}\n"
        write_bytes(folder / REVOKED / f"{number}.pub", line.encode())


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES)
    except OSError as error:
        raise IdentityError(f"can't be read: {error.strerror}") from None
