"""Which code is installed: one hash over the sources of some packages.

It tells an upgrade, or a changed file, from what was reviewed. It does not stop whoever can write
to the installation: they could change what computes it.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from common.errors import ConfigError

_LABEL: Final = b"fedner code v1\n"


def code_sha256(packages: Iterable[Path]) -> str:
    """SHA-256, in hexadecimal, over names and bytes of all Python sources.

    Args:
        packages: their folders; the names of these count, where they lie does not.

    Raises:
        ConfigError: a source that can't be read, or a package without one.
    """
    content: dict[str, str] = {}
    for folder in packages:
        found = {f"{folder.name}/{p.relative_to(folder).as_posix()}": p for p in _sources(folder)}
        if not found:
            raise ConfigError("no Python source is here", place=str(folder))
        content |= {name: hashlib.sha256(_read(path)).hexdigest() for name, path in found.items()}
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")
    return hashlib.sha256(_LABEL + text).hexdigest()


def _sources(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*.py") if path.is_file())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"can't be read: {type(error).__name__}", place=str(path)) from None
