"""A study at one institution: its policy, its data, and what its privacy budget has left."""

import errno
import os
from collections import Counter
from pathlib import Path
from typing import Final

from client.endpoint import group_id, require_member, user_name
from client.ledger_seen import logged
from client.relay import MAX_SOCKET_PATH_BYTES
from client.sides import barrier, check_start, probe
from client.site_paths import SitePaths
from client.witness import Witness
from common.config.canonical import study_hash
from common.config.site import Site
from common.config.study import Study
from common.data.withdrawn import ids_of
from common.io.audit_file import LOG, read_log, salvage_log
from common.io.datasets import Corpus, load_sides
from common.io.ledger_folder import CLOCK_TOLERANCE_S, read_state, utc_seconds
from common.io.vault import stored
from common.io.withdrawn_file import reader_of
from common.policy import decide
from common.privacy.ledger import caps_of
from common.privacy.ledger_state import LedgerState
from common.privacy.outlook import Outlook, in_words, outlook
from common.privacy.plan import plan_of
from common.privacy.units import require_unit_ids
from scripts.doctor.checks import Finding, failed, ok, warning

LEFT_REMEDY: Final = (
    "tell the coordinator: without this institution the last rounds need a `quorum`; or agree on a "
    "new study, with `privacy.spare_rounds`"
)
POLICY_REMEDY: Final = "take part in another study, or change the site's policy on purpose"


def policy(site: Site, base: Path, study: Study) -> Finding:
    """What the worker would decide at its start, before it touches anything."""
    facts = Witness(site, base).at_start()
    decision = decide(study, site.policy, site.institution, facts)
    if not decision.allowed:
        return failed(str(decision), POLICY_REMEDY)
    return ok(f"allows {study.study}, sha256 {study_hash(study)}")


def runnable(site: Site, path: Path) -> Finding:
    """What `fedner client` refuses before it starts anything."""
    notice = check_start(site, path)
    how = "`fedner client`" if site.relay_group is None else "`fedner client --side worker`"
    if not notice:
        return ok(f"{how} would start")
    return warning(f"{how} would start; {notice}", "docs/provisioning.md, 4 and 5")


def worker_user(group: str) -> Finding:
    """Whether this user could be the worker's side.

    Raises:
        ConfigError: there is no such group, or this user is not in it.
    """
    number = group_id(group)
    if os.geteuid() == 0:
        return _as_root("worker's")
    require_member(number, group)
    return ok(f"{user_name(os.geteuid())} is in {group}, and not root")


def relay_user() -> Finding:
    """Whether this user could be the relay's side."""
    return _as_root("relay's") if os.geteuid() == 0 else ok(f"{user_name(os.geteuid())}, not root")


def _as_root(side: str) -> Finding:
    return warning(
        f"this is root, whom no mode keeps out: what the {side} user may do was not tried",
        "look as the side's own user: `runuser -u USER -- fedner doctor …`",
    )


def socket_path(site: Site, base: Path) -> Finding:
    """Whether the worker's socket fits where the site's `state` is."""
    path = SitePaths.of(site, base).socket
    size = len(str(path).encode())
    if size > MAX_SOCKET_PATH_BYTES:
        return failed(
            f"{path}: {size} bytes, a socket's path has at most {MAX_SOCKET_PATH_BYTES}",
            "name a shorter `state`, such as one under /var/lib",
        )
    return ok(f"{path}: {size} bytes of {MAX_SOCKET_PATH_BYTES}")


def socket_reached(path: Path) -> Finding:
    """Whether this user, the relay's, is let in at the worker's socket."""
    why = probe(path)
    if not why:
        return ok("takes connections of this user")
    if why == errno.EACCES:
        return failed(
            f"this user may not reach it: {barrier(path)}",
            "look as the user whom the relay will be; who must be in which group: "
            "docs/deployment.md",
        )
    return warning(
        f"no worker listens ({os.strerror(why)})",
        "start the worker's side, and compare `socket` in both files",
    )


def data(site: Site, base: Path, study: Study) -> Finding:
    """Whether both sides can be read, in the study's labels, with the ids that its unit needs.

    Counts are private: they are for this institution's terminal alone.
    """
    sides = load_sides(site.data, study.task.labels, base)
    for side in (sides.train, sides.test):
        if study.local_privacy is not None:
            require_unit_ids(side, study.local_privacy.unit)
    counts = f"train: {_counted(sides.train)}; test: {_counted(sides.test)}"
    labels = Counter(e.label for d in (*sides.train, *sides.test) for e in d.entities)
    missing = [label for label in study.task.labels if not labels[label]]
    if missing:
        return Finding(
            state="warning",
            said="both sides can be read, but not every label of the study occurs",
            remedy="compare `data.label_map` with the labels of the study and of the documents",
            private=f"{counts}; nowhere: {', '.join(missing)}",
        )
    return ok("both sides can be read, and every label of the study occurs", private=counts)


def withdrawn(site: Site, base: Path, study: Study) -> Finding:
    """Whether the list of who has withdrawn can be read and names documents that are here."""
    read = reader_of(site, base)
    if read is None:
        return ok("the site names no list: `exclude`")
    listed, sides = read(), load_sides(site.data, study.task.labels, base)
    unknown = listed.unknown(ids_of((*sides.train, *sides.test)))
    counts = f"{len(listed)} ids, {unknown} of them of no document here"
    if not unknown:
        return ok("all ids of the list are of documents here", private=counts)
    accepted = site.policy.accept_unknown_exclusions
    return Finding(
        state="warning" if accepted else "failed",
        said="ids of the list are of no document here, which the policy "
        + ("accepts" if accepted else "refuses"),
        remedy="compare their spelling with the documents'; if the documents are gone already, "
        "`policy.accept_unknown_exclusions: true`, on purpose",
        private=counts,
    )


def _counted(documents: Corpus) -> str:
    entities = Counter(e.label for d in documents for e in d.entities)
    patients = len({d.patient_id for d in documents if d.patient_id is not None})
    labels = ", ".join(f"{count} {label}" for label, count in sorted(entities.items()))
    return f"{len(documents)} documents, {patients} patients, {labels or 'no entities'}"


def ledger(site: Site, base: Path, study: Study) -> Finding:
    """Whether the ledger verifies, is what the audit log has seen, its clock is not ahead, and the
    rest of the study fits.
    """
    paths = SitePaths.of(site, base)
    folder, log = paths.ledger, paths.state / LOG
    read_log(log, "site", site.institution)
    told = logged(log, salvage_log(log, "site", site.institution))
    found, _ = read_state(folder, site.institution)
    state = found.state
    told.check(state)
    if state is not None and utc_seconds() < state.time - CLOCK_TOLERANCE_S:
        return failed(
            f"{folder}: the last entry is {state.time - utc_seconds()} s after this machine's time",
            "set the clock right; if it ran ahead when that entry was made, wait until its time",
        )
    said = "no ledger yet, nothing is spent" if state is None else _told(state)
    if study.local_privacy is None:
        return ok(f"{said}; the study has no privacy mechanism, and charges nothing")
    plan, caps = plan_of(study, site.institution), caps_of(site.policy.budget)
    found = outlook(study, plan, state, caps, stored(folder))
    if not found.why:
        return ok(f"{said}; {_what_is_left(found)}")
    partly = found.begun and found.fitting
    return (warning if partly else failed)(f"{said}; {in_words(found)}", LEFT_REMEDY)


def _told(state: LedgerState) -> str:
    return f"{state.seq} entries, chain and signatures are right"


def _what_is_left(found: Outlook) -> str:
    """How the rest of the study stands to the limits."""
    if not found.figures:
        return "all of the study is charged"
    return "; ".join(
        f"{'of the study' if f.scope == 'study' else f.scope} per {f.unit}: epsilon {f.before:.4g} "
        f"spent, {f.after:.4g} after the study, of {f.limit:.4g}"
        for f in found.figures
    )
