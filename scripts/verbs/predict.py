"""`fedner predict`: entities in a text, a text file or a corpus."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from common.data.conll import ConllOptions, render_conll
from common.data.jsonl import render_jsonl
from common.data.records import Document
from common.data.report import check_content
from common.data.respace import respace
from common.errors import DataError, EncoderError, UsageError
from common.io.atomic import write_bytes
from common.io.corpus import load_documents, save_documents
from common.io.models import MANIFEST, load_model
from common.model.ner import NerModel, set_threads
from scripts.console import out, progress_bars, quiet_libraries, show_path, show_said
from scripts.highlight import NOT_A_DEVICE, highlighted, legend, visible
from scripts.reporting.entities_page import entities_page
from scripts.verbs.evaluate import check_format

_FORMATS: Final = ("text", "html", "jsonl", "conll", "brat")


def command(
    model_path: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model's folder.")],
    text: Annotated[str | None, typer.Option(help="Text to read.")] = None,
    input_path: Annotated[
        Path | None, typer.Option("--input", help="Text file, or a corpus with --from.")
    ] = None,
    from_: Annotated[
        str, typer.Option("--from", help="text, conll, brat, pubtator or jsonl.")
    ] = "text",
    to: Annotated[
        str | None,
        typer.Option(
            help="text (entities highlighted), html (one page), jsonl, conll or brat. If absent: "
            "text on a terminal, else jsonl."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", help="Where to write; standard output if absent.")
    ] = None,
    device: Annotated[str, typer.Option(help="`auto`, `cpu` or `cuda`.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads; all cores if absent.")] = None,
) -> None:
    """Find entities. Annotations that the input has are put aside; its tokens are kept.

    For brat, known patients go into a table beside the folder.

    Example: fedner predict runs/RUN/model --text "He denies chest pain; on metoprolol."
    """
    quiet_libraries()
    set_threads(threads)
    to = _format(to, output)
    documents = _read(text, input_path, from_)
    model = load_model(model_path, device)
    notices = _notices(model_path / MANIFEST)
    show_said(notices)
    with progress_bars() as bars:
        task = bars.add_task("windows", total=None)
        prepared = model.prepare([replace(d, entities=()) for d in documents])
        found = model.predict(prepared, lambda d, n: bars.update(task, completed=d, total=n))
    marked = [replace(d, entities=e) for d, e in zip(prepared.documents, found, strict=True)]
    if to == "text":
        _show(marked, model.labels)
    elif to == "html":
        _save_page(marked, model, notices, output)
    else:
        _write(marked, to, output)


def _notices(path: Path) -> list[str]:
    """What the model's manifest says that it does without: of a folder that others may have made.

    Raises:
        EncoderError: it says nothing, or no list of texts.
    """
    manifest = json.loads(path.read_text("utf-8"))
    said = manifest.get("notices")
    if isinstance(said, list) and all(isinstance(one, str) for one in said):
        return said
    raise EncoderError(
        f"notices: {type(said).__name__}; expected a list of texts",
        place=str(path),
        remedy="take the folder again from where the run wrote it",
    )


def _format(to: str | None, output: Path | None) -> str:
    """As asked; else what suits where it goes."""
    if to is None:
        return "text" if output is None and sys.stdout.isatty() else "jsonl"
    if to not in _FORMATS:
        raise UsageError(f"--to {to}: expected {', '.join(_FORMATS)}")
    if to == "brat" and output is None:
        raise UsageError("--to brat writes a folder", remedy="name it with --out")
    if to == "text" and output is not None:
        raise UsageError(
            "--to text goes to standard output", remedy="leave --out out, or write --to html"
        )
    return to


def _show(documents: Sequence[Document], labels: Sequence[str]) -> None:
    for document in documents:
        if len(documents) > 1:
            out.rule(Text(visible(document.doc_id)))
        out.print(highlighted(document, labels))
    out.print(legend(documents, labels))
    out.print(NOT_A_DEVICE, style="dim", highlight=False)


def _save_page(
    documents: Sequence[Document], model: NerModel, notices: Sequence[str], output: Path | None
) -> None:
    page = entities_page(documents, model.labels, model.study.study, notices)
    if output is None:
        sys.stdout.write(page)
        return
    write_bytes(output, page.encode())
    show_path("page", output)


def _read(text: str | None, path: Path | None, format: str) -> tuple[Document, ...]:
    if (text is None) == (path is None):
        raise UsageError("give exactly one of --text and --input")
    if text is not None and format != "text":
        raise UsageError("--from goes with --input")
    if text is not None:
        return (Document(doc_id="text", text=text),)
    if path is None or format != "text":
        return load_documents(path or Path(), check_format(format)).documents
    try:
        content = check_content(path.read_bytes().decode("utf-8"), str(path))
        return (Document(doc_id=path.stem, text=content),)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"can't be read as UTF-8 text: {type(error).__name__}",
            place=str(path),
            remedy="give a text file, or name the format with --from",
        ) from None


def _write(documents: list[Document], to: str, output: Path | None) -> None:
    if to == "conll":
        documents = [respace(d) for d in documents]
    if to == "brat":
        documents = [replace(d, sentences=None, tokens=None) for d in documents]
    if output is not None:
        table = output.with_name(f"{output.name}.patients.tsv")
        patients = to == "brat" and any(d.patient_id is not None for d in documents)
        save_documents(
            documents, output, check_format(to), patients_table=table if patients else None
        )
    elif to == "conll":
        sys.stdout.write(render_conll(documents, ConllOptions()))
    else:
        sys.stdout.write(render_jsonl(documents))
