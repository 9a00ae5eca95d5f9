"""`ner.pyz`: finds entities with an exported model, where fedner is not installed.

    python FOLDER/ner.pyz --text "Denies chest pain; on metoprolol."

The archive lies in the exported folder and holds the very modules that fedner predicts with
(`common.io.archive`). It needs Python 3.11 with torch, transformers, numpy and safetensors.

Guarantees:
    - Standard output is, byte for byte, what `fedner predict` prints of the same input.
    - Nothing is sent or fetched: model and tokenizer are read from the folder alone.
    - What `--out` names is there whole or not at all, for this user alone (mode 0600).
"""

import argparse
import hashlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Final

import torch

from common.data.jsonl import parse_jsonl, render_jsonl
from common.data.labels import bio_tags
from common.data.records import Document
from common.data.report import check_content
from common.data.sentences import tokenise
from common.errors import DataError, EncoderError, FednerError
from common.model.inputs import Tokenizer
from common.model.tagger import Decoding, Tagger

DECODING: Final = "decoding.json"
"""What of the study decides on entities, for a reader that has no YAML."""
WEIGHTS: Final = "model.safetensors"
MANIFEST: Final = "fedner.json"
FORMAT: Final = "fedner decoding v1"


def main(folder: Path, arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit codes are fedner's.

    Args:
        folder: where the model lies.
    """
    asked = _parser().parse_args(arguments)
    try:
        documents = _read(asked.text, asked.input, asked.format)
        if asked.threads is not None:
            torch.set_num_threads(asked.threads)
        for notice in _manifest(folder)["notices"]:
            print(notice, file=sys.stderr)  # noqa: T201 - a program of its own
        tagger = load_tagger(folder, asked.device)
        _write(render_jsonl(find(tagger, documents)), asked.out)
    except FednerError as error:
        print(f"error {error}", file=sys.stderr)  # noqa: T201 - a program of its own
        return error.exit_code
    return 0


def find(tagger: Tagger, documents: Sequence[Document]) -> list[Document]:
    """The documents, tokenised, with the entities that the model finds in place of their own."""
    ready = [tokenise(replace(document, entities=())) for document in documents]
    found = tagger.entities(ready, tagger.windows(ready))
    return [replace(d, entities=e) for d, e in zip(ready, found, strict=True)]


def load_tagger(folder: Path, device: str = "auto") -> Tagger:
    """The model of an exported folder.

    Raises:
        EncoderError: no exported model, weights that are not the manifest's, or no such device.
    """
    try:
        with (folder / WEIGHTS).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        said = f"can't be read: {type(error).__name__}"
        raise _not_exported(folder / WEIGHTS, said) from None
    if found != _manifest(folder)["weights_sha256"]:
        said = "the weights are not the ones that the manifest names"
        raise _not_exported(folder / WEIGHTS, said)
    return tagger_of(folder, _module(folder), device)


def tagger_of(folder: Path, module: Any, device: str) -> Tagger:
    """The folder's rules and tokenizer around a model that was loaded from it; raises likewise."""
    decoding = _decoding(folder)
    tags = tuple(module.config.id2label.get(i) for i in range(module.config.num_labels))
    if tags != bio_tags(decoding.labels):
        raise _not_exported(folder / "config.json", f"its labels are not those of {DECODING}")
    return Tagger(module, Tokenizer.load(folder), decoding, device)


def decoding_json(decoding: Decoding) -> dict[str, Any]:
    """The content of `decoding.json`."""
    return {"format": FORMAT, **asdict(decoding)}


def _decoding(folder: Path) -> Decoding:
    content = _json(folder / DECODING)
    if content.pop("format", None) != FORMAT or set(content) != {f.name for f in fields(Decoding)}:
        raise _not_exported(folder / DECODING, "is not of this version")
    return Decoding(**{**content, "labels": tuple(content["labels"])})


def _manifest(folder: Path) -> dict[str, Any]:
    content = _json(folder / MANIFEST)
    if not {"notices", "weights_sha256"} <= set(content):
        raise _not_exported(folder / MANIFEST, "does not name notices and weights")
    return content


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _not_exported(path, f"can't be read: {type(error).__name__}") from None
    return content if isinstance(content, dict) else {}


def _module(folder: Path) -> Any:
    from transformers import AutoModelForTokenClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return AutoModelForTokenClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        said = f"transformers makes no token classifier of it: {type(error).__name__}"
        raise _not_exported(folder, said) from error


def _not_exported(place: Path, message: str) -> EncoderError:
    remedy = "take the folder again from where `fedner export` wrote it"
    return EncoderError(message, place=str(place), remedy=remedy)


def as_documents(text: str) -> Sequence[Document]:
    """One document of that text."""
    return (Document(doc_id="text", text=text),)


def _read(text: str | None, path: Path | None, format: str) -> Sequence[Document]:
    if path is None:
        return as_documents(text or "")
    try:
        content = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = f"can't be read as UTF-8 text: {type(error).__name__}"
        raise DataError(said, place=str(path), remedy="give a text file") from None
    if format == "jsonl":
        return parse_jsonl(content, str(path)).documents
    return (Document(doc_id=path.stem, text=check_content(content, str(path))),)


def _write(lines: str, path: Path | None) -> None:
    data = lines.encode()
    if path is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        _replace(path, data)
    except OSError as error:
        said = f"can't be written: {error.strerror or type(error).__name__}"
        raise DataError(said, place=str(path), remedy="name a file in a folder of yours") from None


def _replace(path: Path, data: bytes) -> None:
    """As `common.io.atomic` does, but on systems without its calls, too."""
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(0, "a folder, a link or a device is there")
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ner.pyz",
        description="Finds entities with the model in this folder, as fedner does. Prints a JSON "
        "object a document: text, entities with offsets, sentences, words.",
    )
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--text", help="text to read")
    given.add_argument("--input", type=Path, metavar="FILE", help="text file, or JSON Lines")
    parser.add_argument(
        "--from", dest="format", choices=("text", "jsonl"), default="text",
        help="what FILE is; jsonl: an object a line with doc_id, text, entities (put aside)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="standard output if absent")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores if absent")
    return parser
