"""An exported model: a folder to hand on, with all that a reader without fedner needs.

    model.safetensors, config.json   weights (adapters merged), and the labels' map
    tokenizer.json, …                the tokenizer
    study.yaml, fedner.json          what it was trained by, and under what protection
    README.md                        the model card
    ner.pyz, decoding.json           the recogniser, as fedner predicts (`common.io.standalone`)
    ner_pipeline.py                  the same as a transformers pipeline, for who trusts its code
    model.onnx                       where it was asked for (`common.io.onnx_file`)
    manifest.json                    hashes and sizes of all the others, signed

Guarantees:
    - The folder is there whole or not at all; nothing is overwritten.
    - What was written loads, by plain transformers, before it is given its name.
    - Its programs are called fedner's own only if nothing else in it is code or names any.
    - Checking it finds a changed byte, the manifest's own, too; a file too few or too many, a link
      in place of one; another signer or none.
"""

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from common import __version__
from common.errors import EncoderError, IdentityError, UsageError
from common.identity.identity import Identity
from common.identity.manifest import MAX_BYTES, FileMark, Manifest
from common.io.archive import ARCHIVE, archive
from common.io.atomic import write_bytes, write_json
from common.io.disk import DISK
from common.io.encoders import TOKENIZER_FILES, WEIGHTS, file_sha256
from common.io.models import CARD, STUDY, load_model
from common.io.models import MANIFEST as FACTS
from common.io.onnx_file import ONNX
from common.io.standalone import DECODING, decoding_json, load_tagger
from common.model.ner import NerModel, decoding_of

MANIFEST: Final = "manifest.json"
CONFIG: Final = "config.json"
PIPELINE: Final = "ner_pipeline.py"
TASK: Final = "fedner-ner"
"""Not `token-classification`, which is transformers' own, and runs no code of the folder's."""
_PIPELINE_SOURCE: Final = Path(__file__).with_name(PIPELINE)
_CUSTOM: Final = {
    TASK: {
        "impl": "ner_pipeline.NerPipeline",
        "pt": ["AutoModelForTokenClassification"],
        "type": "text",
    }
}
_COPIED: Final = (CONFIG, WEIGHTS, *TOKENIZER_FILES, STUDY, FACTS)
_WRITTEN: Final = {*_COPIED, CARD, DECODING, ARCHIVE, PIPELINE, ONNX, MANIFEST}
_NAMING_CODE: Final = {CONFIG, "tokenizer_config.json"}
_TASKS: Final = "custom_pipelines"
_LOADING: Final = ("auto_map", "attribute_map")
"""The second gives other keys the meaning of the first. `…_implementation` takes a hub's kernel."""

Addition = Callable[[NerModel, Path], None]
"""Writes one more file into the folder."""


def export_model(
    source: Path,
    folder: Path,
    card: Callable[[NerModel], str],
    identity: Identity | None,
    additions: tuple[Addition, ...] = (),
) -> Manifest:
    """Write the folder.

    Args:
        source: a saved model.
        card: README.md of the model.
        identity: who signs; nobody if absent, which the manifest then says.

    Raises:
        UsageError: the folder is there already, or the source is an exported one.
        EncoderError: the source is no saved model, not the one that its manifest names, or its
            configuration has transformers load code.
    """
    if os.path.lexists(folder):
        raise UsageError(
            "is there already", place=str(folder), remedy="name a folder that is not there yet"
        )
    if (source / MANIFEST).exists():
        raise UsageError(
            "was exported already",
            place=str(source),
            remedy="export the saved model that it was made from, such as runs/…/model",
        )
    model = load_model(source, "cpu")
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        _fill(beside, source, model, card(model))
        for add in additions:
            add(model, beside)
        manifest = _manifest(beside, model, identity)
        write_bytes(beside / MANIFEST, manifest.to_bytes())
        _require_own_code(beside)
        load_tagger(beside, "cpu")
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    DISK.fsync_folder(folder.parent)
    return manifest


def verify_export(folder: Path, public_key: str | None) -> Manifest:
    """Check every file against the manifest, and the manifest's signature first.

    Args:
        public_key: of who must have signed, from elsewhere than this folder; `None` checks no
            signature: who can change a file can change the manifest with it.

    Raises:
        IdentityError: not signed, not by that key, or changed after it was signed.
        EncoderError: no manifest, or files that are not those it names, links and all; all of them
            are named.
    """
    manifest = read_manifest(folder)
    if public_key is not None:
        _require_signer(folder / MANIFEST, manifest, public_key)
    faults = list(_faults(folder, manifest))
    if faults:
        raise EncoderError(
            "; ".join(faults),
            place=str(folder),
            remedy="do not use it; take the folder again from its maker",
        )
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an exported folder, not verified."""
    path = folder / MANIFEST
    if path.exists() and not _is_plain(path):
        raise EncoderError(
            "is a link, or no file",
            place=str(path),
            remedy="give the folder itself that `fedner export` wrote, or a copy of its files",
        )
    try:
        with path.open("rb") as stream:
            return Manifest.from_bytes(stream.read(MAX_BYTES + 1))
    except OSError as error:
        raise EncoderError(
            f"no exported model is here: {error.strerror}",
            place=str(path),
            remedy="give the folder that `fedner export` wrote",
        ) from None
    except EncoderError as error:
        raise EncoderError(error.message, place=str(path), remedy=error.remedy) from None


def foreign_code(folder: Path) -> tuple[str, ...]:
    """Where an exported folder has, or names, other code than this fedner writes; empty if nowhere.

    Nothing but the programs, to the byte; no file that no export writes; in the files that
    transformers reads, nobody's pipeline but ours, and no key that has it load code.
    """
    return tuple(_foreign(folder))


def _require_own_code(folder: Path) -> None:
    foreign = foreign_code(folder)
    if foreign:
        raise EncoderError(
            f"would have its readers run other code than fedner's: {'; '.join(foreign)}",
            remedy="remove that key from the saved model's file: fedner loads it without",
        )


def _foreign(folder: Path) -> Iterator[str]:
    programs = _programs()
    there = {path.name for path in folder.iterdir()}
    yield from (f"{name!a}, a file of no export" for name in sorted(there - _WRITTEN))
    for name, code in programs.items():
        if name not in there or (folder / name).read_bytes() != code:
            yield name
    for name in sorted(_NAMING_CODE & (there | {CONFIG})):
        yield from (f"{name}: {key}" for key in _naming_code(folder / name))


def _naming_code(path: Path) -> list[str]:
    """Keys with which transformers loads code from elsewhere; the file as transformers reads it."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return ["can't be read"]
    found = {key for key in _keys(content) if key in _LOADING or key.endswith("_implementation")}
    if path.name == CONFIG and (not isinstance(content, dict) or content.get(_TASKS) != _CUSTOM):
        found.add(_TASKS)
    return sorted(found)


def _keys(content: object) -> Iterator[str]:
    """Of all objects of a JSON file."""
    if isinstance(content, dict):
        yield from content
    if isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _keys(value)


def _programs() -> dict[str, bytes]:
    return {ARCHIVE: archive(), PIPELINE: _PIPELINE_SOURCE.read_bytes()}


def _fill(folder: Path, source: Path, model: NerModel, card: str) -> None:
    for name in _COPIED:
        if (source / name).is_file():
            write_bytes(folder / name, (source / name).read_bytes())
    write_bytes(folder / CARD, card.encode())
    write_json(folder / DECODING, decoding_json(decoding_of(model.study)))
    for name, code in _programs().items():
        write_bytes(folder / name, code)
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    write_json(folder / CONFIG, {**config, _TASKS: _CUSTOM})


def _manifest(folder: Path, model: NerModel, identity: Identity | None) -> Manifest:
    manifest = Manifest(
        fedner=__version__,
        study=model.study.study,
        study_sha256=json.loads((folder / FACTS).read_text("utf-8"))["study_sha256"],
        files={path.name: _mark(path) for path in sorted(folder.iterdir())},
    )
    return manifest if identity is None else manifest.signed_by(identity)


def _mark(path: Path) -> FileMark:
    return FileMark(sha256=file_sha256(path), size=path.stat().st_size)


def _require_signer(path: Path, manifest: Manifest, public_key: str) -> None:
    try:
        manifest.require_signer(public_key)
    except IdentityError as error:
        raise IdentityError(error.message, place=str(path), remedy=error.remedy) from None


def _faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    there = {path.name: path for path in folder.iterdir() if path.name != MANIFEST}
    for name in sorted(there.keys() | manifest.files):
        if name not in there:
            yield f"{name} is missing"
        elif name not in manifest.files:
            yield f"{name!a} is not in the manifest"
        elif not _is_plain(there[name]):
            yield f"{name} is a link, or no file"
        elif _mark(there[name]) != manifest.files[name]:
            yield f"{name} is not what the manifest says"


def _is_plain(path: Path) -> bool:
    """A file itself: a link's target may be another tomorrow."""
    return stat.S_ISREG(path.lstat().st_mode)
