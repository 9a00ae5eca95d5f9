"""`fedner evaluate`: a saved model on annotated documents."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from common.config.site import Site
from common.data.records import Document
from common.errors import UsageError
from common.io.configs import load_any
from common.io.corpus import Format, load_documents
from common.io.datasets import simulated_sides
from common.io.models import MANIFEST, load_model
from common.io.withdrawn_file import own_sides
from common.metrics.entities import as_json
from common.metrics.evaluation import Evaluation
from common.model.ner import set_threads
from scripts.console import (
    out,
    progress_bars,
    quiet_libraries,
    report_table,
    show_counts,
    show_notices,
)
from scripts.groups import SMALLEST, compare, fairness_json, groups_table, read_groups


def command(
    model_path: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model's folder.")],
    path: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Study or site file (held-out side), or a corpus."),
    ],
    format: Annotated[
        str | None,
        typer.Option(
            help="DATA is a corpus in the study's labels: conll, brat, pubtator or jsonl."
        ),
    ] = None,
    groups_path: Annotated[
        Path | None,
        typer.Option(
            "--groups", metavar="TABLE", help="Score by groups of patients, too: docs/fairness.md."
        ),
    ] = None,
    smallest: Annotated[
        int, typer.Option(min=2, help="Groups of fewer patients or documents are not scored.")
    ] = SMALLEST,
    as_json_: Annotated[bool, typer.Option("--json", help="Print JSON, unrounded.")] = False,
    device: Annotated[str, typer.Option(help="`auto`, `cpu` or `cuda`.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads; all cores if absent.")] = None,
) -> None:
    """Entity and word scores of a saved model.

    Example: fedner evaluate runs/RUN/model configs/quickstart.yaml
    """
    quiet_libraries()
    set_threads(threads)
    model = load_model(model_path, device)
    groups = None if groups_path is None else read_groups(groups_path)
    documents, notes, institution = _documents(path, format, model.labels)
    with progress_bars() as bars:
        task = bars.add_task("windows", total=None)
        prepared = model.prepare(documents)
        counts = model.evaluate_each(prepared, lambda d, n: bars.update(task, completed=d, total=n))
    evaluation = Evaluation(model.labels, counts.sum(axis=0))
    entities, words = evaluation.entity_report(), evaluation.token_report()
    found = [] if groups is None else compare(groups, model.labels, documents, counts, smallest)
    if as_json_:
        weights = json.loads((model_path / MANIFEST).read_text("utf-8"))["weights_sha256"]
        of = {"weights_sha256": weights, "institution": institution}
        scores = {**of, "entities": as_json(entities), "tokens": as_json(words)}
        by = {} if groups is None else {"groups": fairness_json(groups, found, smallest)}
        typer.echo(json.dumps({**scores, **by, "notes": {**notes, **prepared.notes()}}))
        return
    show_notices(model.study)
    out.print(report_table("entities (exact match)", entities))
    out.print(report_table("words", words))
    for one in found:
        out.print(groups_table(one, groups.key if groups else "", smallest))
    show_counts("reading", notes)
    show_counts("flattening and tagging", prepared.notes())


def _documents(
    path: Path, format: str | None, labels: tuple[str, ...]
) -> tuple[tuple[Document, ...], Mapping[str, int], str | None]:
    """With what was noted in reading, and the institution if they are a site's."""
    if format is not None:
        result = load_documents(path, check_format(format))
        return result.documents, result.notes, None
    config = load_any(path)
    if isinstance(config, Site):
        own = own_sides(config, labels, path.parent)
        return own.test, own.notes, config.institution
    sides = simulated_sides(config, path.parent)
    notes = next(iter(sides.values())).notes
    return tuple(d for s in sides.values() for d in s.test), notes, None


def check_format(format: str) -> Format:
    """One of the four formats.

    Raises:
        UsageError: another.
    """
    if format not in {"conll", "brat", "pubtator", "jsonl"}:
        raise UsageError(f"format {format}: expected conll, brat, pubtator or jsonl")
    return format  # type: ignore[return-value]
