"""`ner.pyz`, the stand-alone recogniser of an exported folder: a zip archive that Python runs.

Guarantees:
    - It holds `common.io.standalone` and every module of fedner that this imports, anywhere in its
      source, and so on; each as it is installed here, to the byte.
    - The same installation gives the same bytes, on every machine.
"""

import ast
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import common
from common import __version__

ARCHIVE: Final = "ner.pyz"
ENTRY: Final = "common.io.standalone"
NEEDED: Final = ("torch", "transformers", "numpy", "safetensors")
"""Packages that must be there where it runs."""

_SHEBANG: Final = b"#!/usr/bin/env python3\n"
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_MAIN: Final = f'''"""The recogniser of the model in this folder, by fedner {__version__}.

Licence of this archive: Apache-2.0, https://www.apache.org/licenses/LICENSE-2.0
"""

import sys
from pathlib import Path

if sys.version_info < (3, 11):
    sys.exit("ner.pyz needs Python 3.11 or newer")
try:
    from {ENTRY} import main
    import transformers
except ModuleNotFoundError as error:
    sys.exit(f"ner.pyz needs the packages {", ".join(NEEDED)}: {{error.name}} is missing here")
if int(transformers.__version__.partition(".")[0]) < 5:
    sys.exit(f"ner.pyz needs transformers 5 or newer: {{transformers.__version__}} is here")
sys.exit(main(Path(__file__).absolute().parents[1]))  # where it lies, though it be a link
'''


def archive() -> bytes:
    """The archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as zipped:
        for name, data in sorted({"__main__.py": _MAIN.encode(), **sources()}.items()):
            zipped.writestr(_entry(name), data)
    return _SHEBANG + stream.getvalue()


def sources() -> dict[str, bytes]:
    """Path within the archive, and source, of every module of fedner that the entry needs."""
    found: dict[str, bytes] = {}
    waiting = [ENTRY]
    while waiting:
        module = waiting.pop()
        path = _path(module)
        name = path.relative_to(_root()).as_posix()
        if name not in found:
            found[name] = path.read_bytes()
            waiting += _imported(found[name], module)
    return found


def _root() -> Path:
    return Path(str(common.__file__)).parents[1]


def _path(module: str) -> Path:
    place = _root().joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _imported(source: bytes, module: str) -> Iterator[str]:
    """fedner's modules that a source names, and the packages above it."""
    yield from _above(module)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [node.module, *(name for name in inside if _path(name).is_file())]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "common")


def _above(module: str) -> Iterator[str]:
    parts = module.split(".")
    return (".".join(parts[:size]) for size in range(1, len(parts)))


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system, entry.external_attr = 3, 0o100644 << 16  # the same on Windows
    return entry
