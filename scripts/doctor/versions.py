"""Versions of Python and of what fedner imports, against what it declares and what was tested."""

import platform
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from common import __version__
from common.io.flower_internals import PINNED_FLOWER
from scripts.doctor.checks import Finding, failed, ok, warning

CONSTRAINTS: Final = Path(__file__).resolve().parents[2] / "constraints.txt"
_INSTALL: Final = "pip install -c constraints.txt -e ., as on all machines of the federation"
Installed = Callable[[str], str | None]


def installed_version(name: str) -> str | None:
    """Of a distribution, without a local suffix; `None` if it is not there."""
    try:
        return Version(metadata.version(name)).public
    except metadata.PackageNotFoundError:
        return None


def python(requires: str) -> Finding:
    """This Python against a specifier such as `>=3.11`."""
    found = platform.python_version()
    if not SpecifierSet(requires).contains(found, prereleases=True):
        return failed(f"Python {found}, expected {requires}", "make the environment with another")
    return ok(f"Python {found}, fedner {__version__}")


def flower(installed: Installed = installed_version) -> Finding:
    """The pinned Flower, which all machines must share."""
    found = installed("flwr")
    if found != PINNED_FLOWER:
        return failed(f"flwr {found}, expected {PINNED_FLOWER} exactly", _INSTALL)
    return ok(f"flwr {found}")


def libraries(
    requirements: Iterable[str],
    constraints: Path = CONSTRAINTS,
    installed: Installed = installed_version,
) -> Finding:
    """What fedner requires against what is installed, and that against what was tested.

    Args:
        requirements: as the package's metadata have them.
        constraints: the pins with which the tests were run.
    """
    needed = [r for r in map(Requirement, requirements) if r.marker is None or r.marker.evaluate()]
    found = {r.name: installed(r.name) for r in needed}
    wrong = [f"{r} (here: {found[r.name]})" for r in needed if not _fits(r, found[r.name])]
    if wrong:
        return failed(f"expected {', '.join(wrong)}", _INSTALL)
    torch = f"torch {found['torch']}" if "torch" in found else "no torch required"
    if not constraints.is_file():
        return warning(
            f"{torch}; no constraints.txt beside this installation to compare with",
            "compare `pip freeze` with the constraints.txt of the release",
        )
    return _against(found, pins(constraints.read_text("utf-8")), torch)


def pins(text: str) -> dict[str, str]:
    """Version by name in lower case, of the lines `NAME==VERSION`."""
    found = {}
    for line in text.splitlines():
        try:
            pin = Requirement(line.partition("#")[0].strip())
        except InvalidRequirement:
            continue
        for specifier in pin.specifier:
            found[_plain(pin.name)] = specifier.version
    return found


def _against(found: Mapping[str, str | None], tested: Mapping[str, str], torch: str) -> Finding:
    other = [
        f"{name} {version} (tested: {tested[_plain(name)]})"
        for name, version in found.items()
        if tested.get(_plain(name), version) != version
    ]
    if other:
        return warning(f"not the versions that were tested: {', '.join(other)}", _INSTALL)
    return ok(f"{torch}, and {len(found) - 1} more, as constraints.txt has them")


def _fits(requirement: Requirement, found: str | None) -> bool:
    return found is not None and requirement.specifier.contains(found, prereleases=True)


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
