"""All that `fedner doctor SITE` looks at. Each check that needs the study reads it by itself.

Of a site for two users the worker's side reaches no network and has no node key: `relay_checks`
looks at these, as the relay's user.
"""

from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

from client.sides import relay_paths
from client.site_paths import SitePaths
from common.config.canonical import study_hash
from common.config.relay import RelaySite
from common.config.site import Site
from common.config.study import Study
from common.io.addresses import parse_address
from common.io.configs import load_study
from scripts.doctor import clock, disk, keys, machine, network, study, tls, versions
from scripts.doctor.checks import Check, Finding, ok

NET_LIMIT_S = 10.0
SLOW_LIMIT_S = 120.0
"""For what builds a model, or reads all data."""

OfStudy = Callable[[Study], Finding]


def checks(site: Site, path: Path, now: clock.Clock = clock.utc_now) -> Iterator[Check]:
    """The institution's checks, in the order in which a person would mend things.

    Args:
        path: of the site file.
    """
    yield from version_checks()
    if site.relay_group is not None:
        look = partial(study.worker_user, site.relay_group)
        yield Check(group="user", looked_at="this one", look=look)
    yield from _study(site, path)
    yield from _keys(site, path.parent)
    if site.relay_group is None:
        yield from _node(site, path.parent, now)
        yield from _network(site, path.parent, now)
    yield from _disk(site, path.parent)
    yield from _work(site, path.parent)


def relay_checks(relay: RelaySite, path: Path, now: clock.Clock = clock.utc_now) -> Iterator[Check]:
    """Those of the relay's side.

    Args:
        path: of the relay's file.
    """
    paths = relay_paths(relay, path)
    yield from version_checks()
    yield Check(group="user", looked_at="this one", look=study.relay_user)
    yield from _node(relay, path.parent, now)
    yield from _network(relay, path.parent, now)
    look = partial(disk.writable, paths.state)
    yield Check(group="disk", looked_at=str(paths.state), look=look)
    look = partial(study.socket_reached, paths.socket)
    yield Check(group="socket", looked_at=str(paths.socket), look=look)


def of_study(path: Path, look: OfStudy) -> Callable[[], Finding]:
    """A look that needs the study; it fails by itself if that can't be read."""
    return lambda: look(load_study(path))


def version_checks() -> Iterator[Check]:
    """Versions of Python, Flower and the libraries, on both roles."""
    requires = metadata.metadata("fedner")["Requires-Python"]
    needed = metadata.requires("fedner") or []
    yield Check(
        group="versions", looked_at="Python and fedner", look=partial(versions.python, requires)
    )
    yield Check(group="versions", looked_at="Flower", look=versions.flower)
    yield Check(group="versions", looked_at="libraries", look=partial(versions.libraries, needed))


def _study(site: Site, path: Path) -> Iterator[Check]:
    at = path.parent / site.study
    yield Check(group="study", looked_at=str(at), look=of_study(at, _named))
    yield Check(
        group="policy",
        looked_at=f"{path} against {site.study}",
        look=of_study(at, partial(study.policy, site, path.parent)),
        limit_s=SLOW_LIMIT_S,
    )
    yield Check(group="policy", looked_at="the start", look=partial(study.runnable, site, path))


def _named(found: Study) -> Finding:
    return ok(f"{found.study}, sha256 {study_hash(found)}")


def _node(site: Site | RelaySite, base: Path, now: clock.Clock) -> Iterator[Check]:
    if site.authority is not None and site.node is not None:
        at, folder = base / site.authority, base / site.node
        yield _secret("keys", str(at), partial(keys.authority, at, now))
        yield _secret("keys", str(folder), partial(keys.node, folder))


def _keys(site: Site, base: Path) -> Iterator[Check]:
    if site.identity is not None:
        folder = base / site.identity
        words = None if site.passphrase_file is None else base / site.passphrase_file
        look = partial(keys.identity, folder, site.institution, words)
        yield _secret("keys", str(folder), look)
    look = of_study(base / site.study, partial(keys.roster_of, site, base))
    yield _secret("keys", f"roster {site.roster or '(none named)'}", look)


def _secret(group: str, looked_at: str, look: Callable[[], Finding]) -> Check:
    return Check(group=group, looked_at=looked_at, look=look, discreet=True)


def _network(site: Site | RelaySite, base: Path, now: clock.Clock) -> Iterator[Check]:
    host, port = parse_address(site.coordinator, "coordinator")
    route = network.Route.of(host, port)
    yield Check(group="names", looked_at=host, look=partial(network.resolves, host))
    yield Check(group="proxy", looked_at=str(route), look=partial(network.proxy_finding, route))
    reach = partial(network.reachable, route, NET_LIMIT_S)
    yield Check(group="ports", looked_at=str(route), look=reach)
    if site.authority is None:
        return
    at = base / site.authority
    yield Check(
        group="tls",
        looked_at=str(route),
        look=partial(tls.server_chain, route, at, NET_LIMIT_S, now),
        limit_s=3 * NET_LIMIT_S,
    )
    window = partial(clock.certificate_window, at, now)
    yield Check(group="clock", looked_at=str(at), look=window)
    look = partial(clock.against_server, route, at, NET_LIMIT_S, now)
    yield Check(group="clock", looked_at=f"https://{route}/health", look=look)


def _disk(site: Site, base: Path) -> Iterator[Check]:
    folder, at = SitePaths.of(site, base).state, base / site.study
    yield Check(group="disk", looked_at=str(folder), look=partial(disk.writable, folder))
    yield Check(
        group="disk",
        looked_at=f"room in {folder}",
        look=of_study(at, partial(_room, folder)),
        limit_s=SLOW_LIMIT_S,
    )
    look = partial(study.socket_path, site, base)
    yield Check(group="disk", looked_at="the worker's socket", look=look)


def _room(folder: Path, found: Study) -> Finding:
    size = 0 if found.local_privacy is None else machine.dimension(found)
    return disk.room(folder, disk.institution_bytes(found, size))


def _work(site: Site, base: Path) -> Iterator[Check]:
    at = base / site.study
    for group, looked_at, look in (
        ("encoder", "the study's", machine.encoder),
        ("device", site.device, partial(machine.device, site.device)),
        ("data", "both sides", partial(study.data, site, base)),
        ("data", "who has withdrawn", partial(study.withdrawn, site, base)),
        ("ledger", str(SitePaths.of(site, base).ledger), partial(study.ledger, site, base)),
    ):
        yield Check(
            group=group,
            looked_at=looked_at,
            look=of_study(at, look),
            limit_s=SLOW_LIMIT_S,
            discreet=group in {"data", "ledger"},
        )
