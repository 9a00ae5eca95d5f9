"""Study, site, relay and roster files from disk."""

from pathlib import Path

from common.config.load import parse_any, parse_relay, parse_roster, parse_site, parse_study
from common.config.relay import RelaySite
from common.config.site import Site
from common.config.study import Study
from common.errors import ConfigError
from common.identity.roster import Roster


def read_config(path: Path) -> str:
    """The text of a configuration file.

    Raises:
        ConfigError: missing, unreadable or not UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"can't be read: {type(error).__name__}",
            place=str(path),
            remedy="give the path of a study, site or roster file; samples lie in configs/",
        ) from None


def load_study(path: Path) -> Study:
    """Read and check a study file."""
    return parse_study(read_config(path), str(path))


def load_site(path: Path) -> Site:
    """Read and check a site file."""
    return parse_site(read_config(path), str(path))


def load_relay(path: Path) -> RelaySite:
    """Read and check a relay's file."""
    return parse_relay(read_config(path), str(path))


def load_roster(path: Path) -> Roster:
    """Read and check a roster file."""
    return parse_roster(read_config(path), str(path))


def load_any(path: Path) -> Study | Site:
    """Read and check a study or a site file."""
    return parse_any(read_config(path), str(path))
