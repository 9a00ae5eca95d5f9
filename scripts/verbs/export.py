"""`fedner export`: a saved model as a folder to hand on, signed."""

from pathlib import Path
from typing import Annotated

import typer

from common.card import UNKNOWN_LICENCE
from common.errors import UsageError
from common.identity.fingerprint import key_fingerprint
from common.identity.identity import Identity
from common.identity.manifest import Manifest
from common.io.export import export_model
from common.io.identity_files import open_private, read_passphrase
from common.io.onnx_file import (
    LARGEST_DIFFERENCE,
    ONNX,
    Agreement,
    require_packages,
    write_onnx,
)
from scripts.console import err, out, quiet_libraries, show_path
from scripts.model_card import card_of
from scripts.reporting.head import Facts

UNSIGNED = "UNSIGNED. Whoever has this folder can change it, manifest and all, and nobody can tell."


def command(
    source: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model's folder.")],
    folder: Annotated[Path, typer.Option("--out", help="A folder to make.")],
    identity: Annotated[
        Path | None, typer.Option(help="Folder of the identity that signs the manifest.")
    ] = None,
    passphrase_file: Annotated[
        Path | None, typer.Option(help="With the identity's passphrase, of mode 0600.")
    ] = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Leave the manifest without a signature.")
    ] = False,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write model.onnx, too, and compare it with torch.")
    ] = False,
    licence: Annotated[
        str, typer.Option("--licence", "--license", help="Of the model, as model hubs name it.")
    ] = UNKNOWN_LICENCE,
    language: Annotated[
        str | None, typer.Option(help="Of the texts it reads, as model hubs name it: en, de.")
    ] = None,
) -> None:
    """Write a folder that plain transformers loads, with all that a reader needs.

    Beside weights and tokenizer: the study, a model card, a recogniser that runs without fedner
    (ner.pyz), and a signed manifest with every file's hash: docs/export.md.

    Example: fedner export runs/RUN/model --out exported --identity identity
    """
    quiet_libraries()
    if onnx:
        require_packages()
    signer = _signer(identity, passphrase_file, unsigned)
    facts = Facts(licence=licence, language=language)
    found: list[Agreement] = []
    additions = (lambda model, to: found.append(write_onnx(model, to)),) if onnx else ()
    manifest = export_model(
        source, folder, lambda model: card_of(source, model, facts, onnx), signer, additions
    )
    for agreement in found:
        _show_agreement(agreement)
    _show(manifest)
    show_path("exported", folder)


def _signer(folder: Path | None, passphrase_file: Path | None, unsigned: bool) -> Identity | None:
    if unsigned == (folder is not None):
        raise UsageError(
            "give exactly one of --identity FOLDER, which signs, and --unsigned",
            remedy="`fedner identity new` makes an identity",
        )
    if folder is None:
        if passphrase_file is not None:
            raise UsageError("--passphrase-file goes with --identity")
        err.print(UNSIGNED, style="bold red", soft_wrap=True)
        return None
    words = None if passphrase_file is None else read_passphrase(passphrase_file)
    return open_private(folder, words)


def _show(manifest: Manifest) -> None:
    size = sum(mark.size for mark in manifest.files.values())
    lines = [f"{len(manifest.files)} files, {size / 1e6:.1f} MB, of study {manifest.study}"]
    if manifest.signed is not None:
        key = manifest.signed.public_key
        lines += [
            f"signed by {manifest.signed.name} with {key}",
            f"fingerprint {key_fingerprint(key)}",
        ]
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _show_agreement(found: Agreement) -> None:
    shapes = ", ".join(f"{batch} x {tokens}" for batch, tokens in found.shapes)
    out.print(
        f"{ONNX}: logits differ from torch's by at most {found.difference:.2g} "
        f"(accepted: {LARGEST_DIFFERENCE:g}), inputs of {shapes} sub-words",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
