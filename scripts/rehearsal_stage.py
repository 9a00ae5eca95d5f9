"""What a rehearsal is played with: made-up documents, and, for secure sums, made-up identities."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from common.config.study import Study
from common.data.synthetic import LABELS, SyntheticOptions, generate_notes
from common.identity.identity import Identity
from common.identity.roster import Member, Roster
from common.io.corpus import save_documents
from common.io.datasets import Sides, load_sides
from common.io.encoders import resolve_encoder
from common.io.identity_files import create, open_private
from common.model.ner import NerModel
from scripts.rehearsal_worker import IDENTITY, ROSTER, ROSTER_HASH, data_of
from scripts.simulation import COORDINATOR, Bench, Cast

PATIENTS: Final = 4
_HELD_OUT: Final = 1
_NOTE: Final = "made up for a rehearsal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a rehearsal is played with.

    Attributes:
        folder: a temporary one; all that is written lies there.
        name: the institution.
        peers: others that are needed for a quorum, made up.
        cast: identities and roster, in a study with secure aggregation.
        labels: label of the made-up documents to label of the study.
        bench: of the peers.
    """

    folder: Path
    name: str
    study: Study
    peers: tuple[str, ...]
    cast: Cast | None
    labels: Mapping[str, str]
    bench: Bench
    model: NerModel

    @classmethod
    def set_up(cls, study: Study, name: str, folder: Path) -> "Stage":
        """Write documents and keys."""
        peers = peers_of(study, name)
        labels = labels_of(study.task.labels)
        sides = {}
        for party in (name, *peers):
            place = folder if party == name else folder / party
            place.mkdir(exist_ok=True)
            sides[party] = _documents(party, place, labels, study)
        cast = None if study.secure is None else _cast(study, name, folder)
        encoder_dir, info = resolve_encoder(study.encoder.name, study.encoder.weights_sha256)
        bench = Bench(study, sides, encoder_dir, info.fingerprint)
        return cls(
            folder=folder, name=name, study=study, peers=peers, cast=cast, labels=labels,
            bench=bench, model=bench.model("cpu"),
        )  # fmt: skip


def peers_of(study: Study, name: str) -> tuple[str, ...]:
    """As many others as a round needs; with secure aggregation at least two."""
    others = [other for other in study.federation.institutions if other != name]
    needed, secure = study.federation.required, study.secure
    if secure is not None:
        needed = max(needed, secure.threshold or 0, secure.min_cohort or 0, 3)
    return tuple(others[: needed - 1])


def labels_of(wanted: tuple[str, ...]) -> dict[str, str]:
    """Labels of made-up documents as those of a study: the same, or, in order, what is left."""
    left = iter([label for label in wanted if label not in LABELS])
    found = {label: label if label in wanted else next(left, "") for label in LABELS}
    return {ours: theirs for ours, theirs in found.items() if theirs}


def _documents(name: str, folder: Path, labels: Mapping[str, str], study: Study) -> Sides:
    options = SyntheticOptions(
        institutions=(name,), patients_per_institution=PATIENTS, notes_per_patient=(1, 2), seed=1
    )
    notes = generate_notes(options)[name]
    held_out = sorted({note.patient_id or "" for note in notes})[:_HELD_OUT]
    for side, inside in (("train", False), ("test", True)):
        chosen = tuple(note for note in notes if (note.patient_id in held_out) is inside)
        save_documents(chosen, folder / f"{side}.jsonl", "jsonl")
    return load_sides(data_of(folder, dict(labels)), study.task.labels, folder)


def _cast(study: Study, name: str, folder: Path) -> Cast:
    """Made-up identities and their roster; the institution's own lie in the folder."""
    create(folder / IDENTITY, name, None)
    made = {
        one: open_private(folder / IDENTITY, None) if one == name else _fresh(one, folder)
        for one in (*study.federation.institutions, COORDINATOR)
    }
    coordinator = made.pop(COORDINATOR)
    members = tuple(Member(name=n, public_key=i.signer.public_key) for n, i in made.items())
    roster = Roster(coordinator=coordinator.signer.public_key, institutions=members, note=_NOTE)
    content = {
        "coordinator": roster.coordinator,
        "institutions": [{"name": m.name, "public_key": m.public_key} for m in members],
        "note": _NOTE,
    }
    (folder / ROSTER).write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    (folder / ROSTER_HASH).write_text(roster.sha256, "ascii")
    return Cast(identities=made, coordinator=coordinator, roster=roster)


def _fresh(name: str, folder: Path) -> Identity:
    place = folder / f"{IDENTITY}-of-{name}"
    create(place, name, None)
    return open_private(place, None)
