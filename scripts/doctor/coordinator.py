"""All that `fedner doctor --federation FOLDER` looks at, at the coordinator."""

import datetime
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from common.config.canonical import study_hash
from common.config.deployment import Deployment, parse_deployment
from common.config.study import Study
from common.io.authority_files import CURRENT, NEXT, OLD
from common.io.certificate_files import AUTHORITY, SERVER, read_certificate
from common.io.configs import read_config
from common.io.home import coordinator_state
from common.io.signing import read_signer
from scripts.doctor import clock, disk, keys, machine, network, tls
from scripts.doctor.checks import Check, Finding, ok, warning
from scripts.doctor.institution import NET_LIMIT_S, SLOW_LIMIT_S, OfStudy, of_study, version_checks
from server.book_place import require_no_older_key
from server.federation import COORDINATOR, DEPLOYMENT, Federation
from server.receipts import KEY
from server.supervisor import bundle_root

RUNS: Final = Path("runs")
LOOPBACK: Final = "127.0.0.1"
_AUTHORITY_ENDS: Final = "`fedner provision --rotate begin`: docs/provisioning.md, Renewal"


def checks(
    root: Path, study: Path, passphrase: Path | None, now: clock.Clock = clock.utc_now
) -> Iterator[Check]:
    """The coordinator's checks, in the order in which a person would mend things.

    Args:
        study: file.
        passphrase: file with that of the coordinator's identity.
    """
    deployment = deployment_of(root)
    yield from version_checks()
    yield Check(group="versions", looked_at="the checkout", look=_checkout)
    yield from _federation(root, study, now)
    yield from _keys(root, study, passphrase, deployment, now)
    yield from _network(root, deployment)
    yield from _certificates(root, now)
    yield from _disk(study)
    yield Check(
        group="encoder",
        looked_at="the study's",
        look=of_study(study, machine.encoder),
        limit_s=SLOW_LIMIT_S,
    )


def deployment_of(root: Path) -> Deployment:
    """What the federation's folder says of the server.

    Raises:
        ConfigError: it is missing or wrong.
    """
    path = root / DEPLOYMENT
    return parse_deployment(read_config(path), str(path))


def _checkout() -> Finding:
    return ok(f"{bundle_root()}: Flower bundles it")


def _federation(root: Path, study: Path, now: clock.Clock) -> Iterator[Check]:
    yield Check(group="study", looked_at=str(study), look=of_study(study, _named))
    look = of_study(study, lambda found: _enrolled(root, found, now()))
    yield Check(group="federation", looked_at=str(root), look=look)
    yield Check(group="federation", looked_at="node keys", look=partial(keys.node_keys, root))


def _named(found: Study) -> Finding:
    return ok(f"{found.study}, sha256 {study_hash(found)}")


def _enrolled(root: Path, study: Study, now: datetime.datetime) -> Finding:
    found = Federation.open(root, study, now)
    if found.demo:
        return warning(
            "DEMO: one machine made every key", "for trying it out alone: provision anew for real"
        )
    if found.notices:
        return warning("; ".join(found.notices), "docs/provisioning.md, 3 and 5")
    return ok(f"{found.deployment.federation}: all institutions of the study are enrolled")


def _keys(
    root: Path, study: Path, passphrase: Path | None, deployment: Deployment, now: clock.Clock
) -> Iterator[Check]:
    hosts = deployment.server.hosts

    def roster(found: Study) -> Finding:
        federation = Federation.open(root, found, now())
        return keys.coordinators_roster(federation, passphrase, found)

    for looked_at, look in (
        (str(root / SERVER), lambda: keys.server_pairs(root, hosts, now())),
        ("rotation of the authority", partial(keys.rotation, root)),
        *((str(folder), partial(keys.authority_key, folder)) for folder in _authorities(root)),
        (str(root / COORDINATOR), partial(keys.identity, root / COORDINATOR, None, passphrase)),
        ("roster", of_study(study, roster)),
    ):
        yield Check(group="keys", looked_at=looked_at, look=look, discreet=True)


def _authorities(root: Path) -> Iterator[Path]:
    """Folders of the current authority, and of the other one while a rotation is under way."""
    yield root / CURRENT
    yield from (root / name for name in (NEXT, OLD) if (root / name).is_dir())


def _network(root: Path, deployment: Deployment) -> Iterator[Check]:
    server = deployment.server
    for name in server.names:
        yield Check(group="names", looked_at=name, look=partial(network.resolves, name))
    yield Check(
        group="ports",
        looked_at=f"{server.listen}:{server.port}",
        look=partial(_port, root, server.listen, server.port),
        limit_s=3 * NET_LIMIT_S,
    )


def _port(root: Path, listen: str, port: int) -> Finding:
    """Free, or this federation's server has it."""
    found = network.bindable(listen, port)
    if found.state == "ok":
        return found
    host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(listen, listen)
    shown = tls.presented(network.Route(host=host, port=port), NET_LIMIT_S)
    if shown is None or shown != read_certificate(root / SERVER / f"{SERVER}.crt"):
        return found
    return warning(
        "this federation's server runs there, with the certificate of this folder",
        "end it before you start another",
    )


def _certificates(root: Path, now: clock.Clock) -> Iterator[Check]:
    files = (
        (root / SERVER / f"{SERVER}.crt", tls.RENEW),
        (root / SERVER / "link.crt", tls.RENEW),
        (root / SERVER / AUTHORITY, _AUTHORITY_ENDS),
        *((root / name / AUTHORITY, _AUTHORITY_ENDS) for name in (NEXT,) if (root / name).is_dir()),
    )
    for path, remedy in files:
        look = partial(tls.certificate_life, path, now, remedy)
        yield Check(group="tls", looked_at=str(path), look=look)
        window = partial(clock.certificate_window, path, now)
        yield Check(group="clock", looked_at=str(path), look=window)


def _disk(study: Path) -> Iterator[Check]:
    book: OfStudy = _book
    yield Check(group="disk", looked_at="receipts", look=of_study(study, book))
    look: OfStudy = _room
    yield Check(group="disk", looked_at=str(RUNS), look=partial(disk.writable, RUNS))
    yield Check(
        group="disk",
        looked_at=f"room in {RUNS}",
        look=of_study(study, look),
        limit_s=SLOW_LIMIT_S,
    )


def _book(found: Study) -> Finding:
    """Whether the key that every site pins, and the receipts, have a place; none is made."""
    if found.local_privacy is None:
        return ok("the study has no differential privacy, and needs no receipts")
    folder = coordinator_state()
    require_no_older_key(folder)
    there = disk.writable(folder)
    if read_signer(folder / KEY) is None:
        return ok(f"{there.said}; a key is made there with the first study")
    return ok(f"{there.said}; the key is there: keep a copy of {folder}")


def _room(found: Study) -> Finding:
    needed = disk.coordinator_bytes(found, machine.dimension(found), machine.encoder_bytes(found))
    return disk.room(RUNS, needed)
