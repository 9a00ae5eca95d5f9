"""`fedner data`: look at documents, generate some, deal a simulation's out to folders."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich import box
from rich.table import Table

from common.config.canonical import study_yaml
from common.config.load import parse_roster
from common.config.site import Site
from common.config.study import Study
from common.data.encode import document_words, tags_of
from common.data.flatten import flatten_all
from common.data.records import Document
from common.data.sentences import tokenise
from common.data.synthetic import SyntheticOptions, generate_notes
from common.errors import UsageError
from common.identity.roster import Roster
from common.io.atomic import write_bytes
from common.io.configs import load_any, load_study
from common.io.corpus import load_documents, save_documents
from common.io.datasets import simulated_sides
from common.io.identity_files import create
from common.io.withdrawn_file import own_sides
from scripts.console import err, out, show_counts, show_path
from scripts.verbs.evaluate import check_format

COORDINATOR = "coordinator"

app = typer.Typer(help="Annotated documents.", no_args_is_help=True)


@app.command("inspect")
def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="DATA", help="Study or site file, or a corpus with --format.")
    ],
    format: Annotated[str | None, typer.Option(help="conll, brat, pubtator or jsonl.")] = None,
) -> None:
    """Count documents, words and entities, and all that reading and flattening resolved.

    Example: fedner data inspect configs/quickstart.yaml
    """
    if format is not None:
        result = load_documents(path, check_format(format))
        out.print(_counts({path.name: result.documents}))
        _show_notes(result.notes)
        return
    config = load_any(path)
    if isinstance(config, Site):
        study = load_study(path.parent / config.study)
        holders = {config.institution: own_sides(config, study.task.labels, path.parent)}
    else:
        holders = simulated_sides(config, path.parent)
    rows = {
        f"{n} {side}": getattr(s, side) for n, s in holders.items() for side in ("train", "test")
    }
    out.print(_counts(rows))
    _show_notes(next(iter(holders.values())).notes)


@app.command("synth")
def synth(
    output: Annotated[Path, typer.Option("--out", help="Folder to make: one JSONL file each.")],
    institutions: Annotated[int, typer.Option(min=1, help="How many institutions.")] = 4,
    patients: Annotated[int, typer.Option(min=1, help="Patients per institution.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Of every draw.")] = 1,
) -> None:
    """Write synthetic clinical notes with gold entities. No person stands behind them.

    Example: fedner data synth --out notes --institutions 4 --patients 40
    """
    names = tuple(f"hospital-{i + 1}" for i in range(institutions))
    notes = generate_notes(
        SyntheticOptions(
            institutions=names,
            patients_per_institution=patients,
            notes_per_patient=(2, 4),
            seed=seed,
        )
    )
    _make(output)
    for name, documents in notes.items():
        save_documents(documents, output / f"{name}.jsonl", "jsonl")
    out.print(_counts(notes))
    show_path("written", output)


@app.command("deal")
def deal(
    path: Annotated[Path, typer.Argument(metavar="STUDY", help="A study with `simulation`.")],
    output: Annotated[Path, typer.Option("--out", help="Folder to make.")],
    coordinator: Annotated[str, typer.Option(help="Where institutions will look for it.")] = (
        "127.0.0.1:9192"
    ),
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of each worker.")] = None,
) -> None:
    """Write a simulation's institutions as real ones: study, documents and site file of each.

    A study with secure aggregation also gets identities without passphrases and a roster that each
    site pins, unseen by anybody: for development only.

    Example: fedner data deal configs/quickstart.yaml --out federation
    """
    study = load_study(path)
    if study.secure is not None and study.secure.roster_sha256 is not None:
        raise UsageError(
            "the study names its roster, whose keys are not here",
            remedy="leave `secure_aggregation.roster_sha256` out to try it on one machine",
        )
    _make(output)
    for name in study.federation.institutions:
        (output / name).mkdir()
    roster = None if study.secure is None else _identities(study, output)
    write_bytes(output / "study.yaml", study_yaml(study).encode())
    names = study.federation.institutions
    for name, sides in simulated_sides(study, path.parent).items():
        folder = output / name
        save_documents(sides.train, folder / "train.jsonl", "jsonl")
        save_documents(sides.test, folder / "test.jsonl", "jsonl")
        site = _site(study, name, coordinator, threads or _share(len(names)))
        if roster is not None:
            site |= {"identity": "identity", "roster": "../roster.yaml"}
            site["policy"] |= {"roster_sha256": roster.sha256}
        text = yaml.safe_dump(site, sort_keys=False)
        write_bytes(folder / "site.yaml", text.encode())
        show_path("written", folder / "site.yaml")


def _identities(study: Study, output: Path) -> Roster:
    """A key for each party, open in its file, and the roster of all."""
    err.print(
        "DEVELOPMENT IDENTITIES. One machine made all keys, they lie open in their files, and "
        "nobody compared the roster: the coordinator could have made it up.",
        style="bold red",
        highlight=False,
    )
    coordinator = create(output / COORDINATOR, COORDINATOR, None)
    members = [
        {"name": name, "public_key": create(output / name / "identity", name, None).public_key}
        for name in study.federation.institutions
    ]
    content = {
        "coordinator": coordinator.public_key,
        "institutions": members,
        "note": "made by `fedner data deal` for development",
    }
    text = yaml.safe_dump(content, sort_keys=False)
    write_bytes(output / "roster.yaml", text.encode())
    show_path("written", output / "roster.yaml")
    return parse_roster(text, str(output / "roster.yaml"))


def _share(workers: int) -> int:
    """Threads of each of several workers on this machine."""
    return max(1, (os.cpu_count() or 1) // workers)


def _site(study: Study, name: str, coordinator: str, threads: int) -> dict[str, Any]:
    sides = {side: {"format": "jsonl", "path": f"{side}.jsonl"} for side in ("train", "test")}
    return {
        "institution": name,
        "study": "../study.yaml",
        "coordinator": coordinator,
        "data": sides,
        "state": "state",
        "threads": threads,
        "policy": _policy(study),
    }


def _policy(study: Study) -> dict[str, Any]:
    """What these stand-ins must accept for the study to run, and no more."""
    privacy = study.local_privacy
    asked = {
        "accept_privacy_none": privacy is None,
        "accept_exact_evaluation": privacy is not None and privacy.evaluation == "exact",
        "accept_insecure_seed": privacy is not None and privacy.insecure_seed is not None,
        "accept_secure_aggregation_none": study.secure is None,
        "accept_semi_honest": study.secure_adversary == "semi_honest",
        "accept_one_user": True,
    }
    return {key: True for key, needed in asked.items() if needed}


def _make(folder: Path) -> None:
    if folder.exists():
        raise UsageError(f"{folder} is already there", remedy="name a folder that is not")
    folder.mkdir(parents=True)


def _counts(rows: Mapping[str, Sequence[Document]]) -> Table:
    labels = sorted({e.label for documents in rows.values() for d in documents for e in d.entities})
    heads = (
        "docs",
        "patients",
        "sentences",
        "words",
        *labels,
        "resolved",
        "inexact",
        "crossing",
    )
    table = Table(box=box.SIMPLE)
    table.add_column(overflow="fold")
    for head in heads:
        table.add_column(head, justify="right", overflow="fold")
    for name, documents in rows.items():
        table.add_row(name, *(f"{count:,}" for count in _row(documents, labels)))
    return table


def _row(documents: Sequence[Document], labels: list[str]) -> list[int]:
    given = Counter(e.label for d in documents for e in d.entities)
    ready, flattened = flatten_all([tokenise(d) for d in documents])
    reports = [tags_of(d, labels)[1] for d in ready] if labels else []
    return [
        len(documents),
        len({d.patient_id for d in documents if d.patient_id is not None}),
        sum(len(d.sentences or ()) for d in ready),
        sum(len(document_words(d)) for d in ready),
        *(given[label] for label in labels),
        sum(given.values()) - flattened.kept + flattened.discontinuous_resolved,
        sum(r.inexact for r in reports),
        sum(r.crossing for r in reports),
    ]


def _show_notes(notes: Mapping[str, int]) -> None:
    show_counts("reading", notes)
    out.print(
        "resolved: nested, overlapping or discontinuous entities that were dropped or shortened; "
        "inexact: boundaries inside a word; crossing: entities over a sentence's end"
    )
