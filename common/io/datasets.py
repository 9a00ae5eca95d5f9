"""The documents that a study's institutions train on and are tested on, read from configuration."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.config.data import Data, Source
from common.config.study import Simulation, Study, Synthetic
from common.data.conll import ConllOptions
from common.data.labels import map_labels
from common.data.partition import PartitionOptions, partition
from common.data.records import Document
from common.data.split import split
from common.data.synthetic import SyntheticOptions, generate_notes
from common.errors import ConfigError, DataError
from common.io.corpus import load_documents

Corpus = tuple[Document, ...]


@dataclass(frozen=True, slots=True)
class Sides:
    """One institution's documents. No unit is on both sides.

    Attributes:
        notes: what reading and label mapping merged, ignored or dropped.
    """

    train: Corpus
    test: Corpus
    notes: Mapping[str, int] = field(default_factory=dict)


def load_source(source: Source, base: Path) -> tuple[Corpus, Counter[str]]:
    """Read one corpus; relative paths start at `base`."""
    conll = None
    if source.format == "conll":
        conll = ConllOptions(scheme=source.scheme, column=source.column, delimiter=source.delimiter)
    result = load_documents(
        base / source.path,
        source.format,
        conll=conll,
        documents_table=base / source.documents if source.documents else None,
        patients_table=base / source.patients if source.patients else None,
    )
    documents = result.documents
    if source.patient_per_document:
        documents = tuple(replace(d, patient_id=d.patient_id or d.doc_id) for d in documents)
    return documents, Counter(result.notes)


def load_sides(data: Data, labels: Sequence[str], base: Path) -> Sides:
    """Both sides of one institution's data, in the study's labels.

    Raises:
        DataError: unreadable data; a unit on both sides; a side without documents.
    """
    if data.all is not None and data.split is not None:
        documents, notes = load_source(data.all, base)
        fractions = {"train": 1 - data.split.test, "test": data.split.test}
        parts = split(documents, fractions, data.split.key.encode())
        train, test = parts["train"], parts["test"]
    elif data.train is not None and data.test is not None:
        train, notes = load_source(data.train, base)
        test, more = load_source(data.test, base)
        notes += more
    else:
        raise ConfigError("data: give `train` and `test`, or `all` and `split`")
    _check_apart(train, test)
    mapped = []
    for side in (train, test):
        documents, dropped = map_labels(side, data.label_map, labels, data.unmapped)
        mapped.append(documents)
        notes += dropped
    return Sides(mapped[0], mapped[1], dict(notes))


def simulated_sides(study: Study, base: Path) -> dict[str, Sides]:
    """What each institution of a simulation holds.

    Raises:
        ConfigError: the study has no `simulation` section.
        DataError: as the readers and partitions say.
    """
    if study.simulation is None:
        raise ConfigError(
            "the study has no `simulation` section",
            remedy="add one, or run it with `fedner server` and `fedner client`",
        )
    names = study.federation.institutions
    if study.simulation.synthetic is not None:
        return _synthetic_sides(study.simulation.synthetic, names)
    return _dealt_sides(study.simulation, study.task.labels, names, base)


def _synthetic_sides(options: Synthetic, names: tuple[str, ...]) -> dict[str, Sides]:
    notes = generate_notes(
        SyntheticOptions(
            institutions=names,
            patients_per_institution=options.patients_per_institution,
            notes_per_patient=options.notes_per_patient,
            seed=options.seed,
        )
    )
    fractions = {"train": 1 - options.test_fraction, "test": options.test_fraction}
    key = f"synthetic split {options.seed}".encode()
    parts = {name: split(documents, fractions, key) for name, documents in notes.items()}
    return {name: Sides(p["train"], p["test"]) for name, p in parts.items()}


def _dealt_sides(
    simulation: Simulation, labels: Sequence[str], names: tuple[str, ...], base: Path
) -> dict[str, Sides]:
    if simulation.data is None or simulation.partition is None:
        raise ConfigError("simulation: `data` and `partition` go together")
    sides = load_sides(simulation.data, labels, base)
    options = PartitionOptions(
        kind=simulation.partition.kind,
        seed=simulation.partition.seed,
        alpha=simulation.partition.alpha,
        proportions=simulation.partition.proportions,
    )
    train = partition(sides.train, names, options)
    test = partition(sides.test, names, options)
    return {name: Sides(train[name], test[name], sides.notes) for name in names}


def _check_apart(train: Corpus, test: Corpus) -> None:
    tested = {d.unit_id for d in test}
    both = [d.doc_id for d in train if d.unit_id in tested]
    if both:
        raise DataError(
            f"{len(both)} training documents, or their patients, are held out as well",
            place=both[0],
            remedy="take them out of one side",
        )
