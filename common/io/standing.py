"""Who this machine is in a study: its identity, and the roster that its owner agreed to.

Guarantees:
    - An institution stands only on the roster whose hash its policy pins, which must be the
      study's own if the study names one, hold exactly the study's institutions in order, and have
      this identity's key under this institution's name.
    - The coordinator stands only on a roster that has its key as the coordinator's.
"""

from dataclasses import dataclass
from pathlib import Path

from common.config.site import Site
from common.config.study import Study
from common.errors import IdentityError
from common.identity.identity import Identity
from common.identity.roster import Roster, require_member, require_names, require_pin
from common.io.configs import load_roster
from common.io.identity_files import open_private, read_passphrase


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An identity on a roster. The private key does not print."""

    identity: Identity
    roster: Roster


def institution_standing(site: Site, base: Path, study: Study) -> Standing:
    """An institution's.

    Args:
        base: folder of the site file, at which relative paths start.

    Raises:
        IdentityError: the site names no identity or roster, or one that does not stand.
        ConfigError: the roster file is malformed.
    """
    if site.identity is None or site.roster is None:
        missing = "identity" if site.identity is None else "roster"
        raise IdentityError(
            f"the site names no `{missing}`, and the study has secure aggregation",
            place=f"site {site.institution}",
            remedy="add `identity` and `roster` to the site file: docs/identity.md",
        )
    roster = load_roster(base / site.roster)
    require_pin(roster, site.policy.roster_sha256, "the site's policy")
    _require_study(roster, study)
    identity = site_identity(site.identity, site, base)
    require_member(roster, site.institution, identity.signer.public_key)
    return Standing(identity=identity, roster=roster)


def site_identity(folder: str, site: Site, base: Path) -> Identity:
    """The site's own keys, in the folder that its file names.

    Raises:
        IdentityError: they can't be opened.
    """
    words = None if site.passphrase_file is None else read_passphrase(base / site.passphrase_file)
    return open_private(base / folder, words)


def coordinator_standing(
    folder: Path, passphrase: str | None, roster_path: Path, study: Study
) -> Standing:
    """The coordinator's.

    Raises:
        IdentityError: the identity is not the roster's coordinator, or the roster not the study's.
        ConfigError: the roster file is malformed.
    """
    roster = load_roster(roster_path)
    _require_study(roster, study)
    identity = open_private(folder, passphrase)
    if identity.signer.public_key != roster.coordinator:
        raise IdentityError(
            f"the roster's coordinator is {roster.coordinator}, the key here is "
            f"{identity.signer.public_key}",
            place=str(roster_path),
            remedy="use the identity that the institutions agreed on",
        )
    return Standing(identity=identity, roster=roster)


def _require_study(roster: Roster, study: Study) -> None:
    require_names(roster, study.federation.institutions)
    named = None if study.secure is None else study.secure.roster_sha256
    if named is not None:
        require_pin(roster, named, "the study")
