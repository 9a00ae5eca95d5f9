"""Annotated documents from disk and to disk, in the formats of `common.data`.

Guarantees:
    - All documents of a path or a `DataError`; never a part, never none.
    - Files are UTF-8, read byte for byte (no newline translation).
    - A file is written beside its place and renamed there, readable by its owner only; a reader
      sees the old file or the new one. With tables, the documents come last.
    - `load_documents` with the same arguments gives back what `save_documents` was given.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from common.data.brat import parse_brat, render_brat
from common.data.conll import ConllOptions, parse_conll, parse_documents_table, render_conll
from common.data.jsonl import parse_jsonl, render_jsonl
from common.data.pubtator import parse_pubtator, render_pubtator
from common.data.records import Document
from common.data.report import ReadResult, check_content, check_id, check_unique_ids, join_results
from common.errors import ConfigError, DataError
from common.io.atomic import write_bytes

Format = Literal["conll", "brat", "pubtator", "jsonl"]


def load_documents(
    path: Path,
    format: Format,
    *,
    conll: ConllOptions | None = None,
    documents_table: Path | None = None,
    patients_table: Path | None = None,
) -> ReadResult:
    """Read a corpus.

    Args:
        path: a file; for brat a folder of `ID.txt`/`ID.ann` pairs, read in order of name (other
            files and hidden ones are counted as `ignored_files`).
        conll: layout of a column file; the defaults of `ConllOptions` if absent.
        documents_table: TSV that gives a column file its documents.
        patients_table: TSV of document id and patient id; every document must have a row, rows
            of other documents are counted as `unused_patients`.

    Raises:
        ConfigError: an unknown format, or column file arguments with another format.
        DataError: a path that is missing, unreadable or of the wrong kind, invalid UTF-8 (with
            the byte offset), whatever the reader refuses, no documents.
    """
    options = _options(format, conll, documents_table)
    if documents_table is not None:
        table = parse_documents_table(_read_text(documents_table), str(documents_table))
        options = replace(options, documents=table)
    result = _load_folder(path) if format == "brat" else _load_file(path, format, options)
    if not result.documents:
        raise DataError("no documents", place=str(path), remedy="check path and format")
    if patients_table is None:
        return result
    return _with_patients(result, patients_table)


def _options(
    format: Format, conll: ConllOptions | None, documents_table: Path | None
) -> ConllOptions:
    if format not in get_args(Format):
        raise ConfigError(f"expected one of {', '.join(get_args(Format))}", place="format")
    if format != "conll" and (conll is not None or documents_table is not None):
        raise ConfigError("column options belong to format: conll", place="format")
    options = conll or ConllOptions()
    if options.documents is not None and documents_table is not None:
        raise ConfigError("the documents are given twice", place="documents")
    return options


def _load_file(path: Path, format: Format, options: ConllOptions) -> ReadResult:
    text = _read_text(path)
    if format == "conll":
        return parse_conll(text, str(path), options)
    return (parse_pubtator if format == "pubtator" else parse_jsonl)(text, str(path))


def _load_folder(path: Path) -> ReadResult:
    if not path.is_dir():
        raise DataError(
            "expected a folder of .txt/.ann pairs",
            place=str(path),
            remedy="check the path; for one pair, put it into a folder of its own",
        )
    pairs, ignored = _pairs(path)
    results = [
        parse_brat(_read_text(text), _read_text(annotations), str(annotations), name)
        for name, (text, annotations) in pairs.items()
    ]
    return join_results([*results, ReadResult((), {"ignored_files": ignored})])


def _pairs(path: Path) -> tuple[dict[str, tuple[Path, Path]], int]:
    """Text and annotation file by document id, and how many other files there are."""
    with _os_errors(path):
        entries = sorted(path.iterdir())
        visible = [entry for entry in entries if not entry.name.startswith(".")]
        if folders := [entry for entry in visible if entry.is_dir()]:
            raise DataError(
                "a folder within the folder", place=str(folders[0]), remedy="name that one instead"
            )
    texts = {entry.name[:-4]: entry for entry in visible if entry.name.endswith(".txt")}
    annotations = {entry.name[:-4]: entry for entry in visible if entry.name.endswith(".ann")}
    if alone := sorted(texts.keys() ^ annotations.keys()):
        lone = texts.get(alone[0]) or annotations[alone[0]]
        raise DataError(
            f"{len(alone)} files without their partner (ID.txt and ID.ann), this is the first",
            place=str(lone),
            remedy="add the partner (an .ann file may be empty) or remove the file",
        )
    pairs = {name: (texts[name], annotations[name]) for name in texts}
    return pairs, len(entries) - 2 * len(pairs)


@contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    """Errors of the operating system as `DataError`, with the remedy for the common ones."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(
            "no such file or folder",
            place=str(path),
            remedy="check the path; relative ones start at the configuration file",
        ) from None
    except IsADirectoryError:
        raise DataError("expected a file, found a folder", place=str(path)) from None
    except OSError as error:
        raise DataError(f"{error.strerror or 'not accessible'}", place=str(path)) from None


def _read_text(path: Path) -> str:
    with _os_errors(path):
        raw = path.read_bytes()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"no UTF-8 at byte offset {error.start}",
            place=f"{path}:{line}",
            remedy="convert the file to UTF-8",
        ) from None


def parse_patients_table(text: str, source: str) -> dict[str, str]:
    """Read a TSV of document id and patient id.

    Raises:
        DataError: with place `source:line`: not two fields, an unusable id, a document twice.
    """
    check_content(text, source)
    patients: dict[str, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
        place, row = f"{source}:{number}", line.removesuffix("\r").split("\t")
        if len(row) != 2:
            raise DataError("expected document id and patient id, tab separated", place=place)
        if check_id(row[0], place) in patients:
            raise DataError("the document id stands twice", place=place)
        patients[row[0]] = check_id(row[1], place, "patient id")
    return patients


def _with_patients(result: ReadResult, table: Path) -> ReadResult:
    patients = parse_patients_table(_read_text(table), str(table))
    documents = tuple(_with_patient(document, patients, table) for document in result.documents)
    unused = len(patients) - len(documents)
    return ReadResult(documents, {**result.notes, "unused_patients": unused})


def _with_patient(document: Document, patients: Mapping[str, str], table: Path) -> Document:
    patient = patients.get(document.doc_id)
    if patient is None:
        raise DataError(
            f"no row for document {document.doc_id}",
            place=str(table),
            remedy="give every document a row, or leave the table out",
        )
    if document.patient_id not in (None, patient):
        raise DataError(
            f"another patient than the corpus has for document {document.doc_id}",
            place=str(table),
        )
    return replace(document, patient_id=patient)


def save_documents(
    documents: Sequence[Document],
    path: Path,
    format: Format,
    *,
    conll: ConllOptions | None = None,
    documents_table: Path | None = None,
    patients_table: Path | None = None,
) -> None:
    """Write a corpus; the inverse of `load_documents`. An existing file is replaced.

    Args:
        path: a file; for brat a folder that does not exist or is empty.
        documents_table: written for a column file, which then has no marks.
        patients_table: written; the corpus itself then holds no patient ids. Needed for brat and
            PubTator, which can't hold them, if the documents have any.

    Raises:
        ConfigError: as for `load_documents`.
        DataError: no documents, documents that the format can't hold, a path that can't be
            written. Nothing is written then, but for the tables if the disk fails in between.
    """
    options = _options(format, conll, documents_table)
    check_unique_ids(documents)
    if not documents:
        raise DataError("no documents to write", place=str(path))
    tables: dict[Path, str] = {}
    if patients_table is not None:
        tables[patients_table] = _render_patients(documents)
        documents = [replace(document, patient_id=None) for document in documents]
    if documents_table is not None:
        tables[documents_table], options = _render_table(documents, options)
    if format == "brat":
        files = _render_folder(documents)
        _check_target(path)
    else:
        content = _render_file(documents, format, options)
    for table, text in tables.items():
        _write_file(table, text)
    if format == "brat":
        _write_folder(path, files)
    else:
        _write_file(path, content)


def _render_file(documents: Sequence[Document], format: Format, options: ConllOptions) -> str:
    if format == "conll":
        return render_conll(documents, options)
    return (render_pubtator if format == "pubtator" else render_jsonl)(documents)


def _render_patients(documents: Sequence[Document]) -> str:
    for document in documents:
        check_id(document.patient_id or "", document.doc_id, "patient id for every document")
    return "".join(f"{document.doc_id}\t{document.patient_id}\n" for document in documents)


def _render_table(documents: Sequence[Document], options: ConllOptions) -> tuple[str, ConllOptions]:
    rows, first = [], 0
    for document in documents:
        rows.append((document.doc_id, first, len(document.sentences or ())))
        first += rows[-1][2]
    text = "".join(f"{name}\t{at}\t{count}\n" for name, at, count in rows)
    return text, replace(options, documents=tuple(rows))


def _render_folder(documents: Sequence[Document]) -> dict[str, str]:
    """Content by file name."""
    files = {}
    for document in documents:
        name = check_id(document.doc_id, "doc_id")
        if set(name) & set('/\\:*?"<>|') or name.startswith(".") or len(name.encode()) > 200:
            raise DataError("the id can't be a file name", place=name, remedy="write jsonl")
        if document.patient_id is not None:
            raise DataError(
                "brat can't hold a patient id", place=name, remedy="give a patients table"
            )
        files[f"{name}.txt"], files[f"{name}.ann"] = render_brat(document)
    return files


def _check_target(path: Path) -> None:
    with _os_errors(path):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise DataError(
                "expected a folder that is empty or does not exist",
                place=str(path),
                remedy="name another folder, or empty this one",
            )


def _write_file(path: Path, text: str) -> None:
    with _os_errors(path):
        write_bytes(path, text.encode("utf-8"))


def _write_folder(path: Path, files: Mapping[str, str]) -> None:
    with _os_errors(path), tempfile.TemporaryDirectory(prefix=".fedner-", dir=path.parent) as name:
        folder = Path(name) / "documents"
        folder.mkdir(mode=0o700)
        for file_name, text in files.items():
            (folder / file_name).write_bytes(text.encode("utf-8"))
        os.replace(folder, path)
