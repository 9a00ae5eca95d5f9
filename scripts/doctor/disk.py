"""Disk: room for what a study writes, and whether what is written is there after a crash."""

import os
import secrets
import shutil
from pathlib import Path
from typing import Final

from common.config.study import Study
from common.errors import FederationError
from common.io.disk import DISK, write_at
from common.privacy.plan import evaluation_due
from scripts.doctor.checks import Finding, failed, ok, warning

MIB: Final = 1 << 20
BASE_BYTES: Final = 256 * MIB
"""Logs, metrics, and what Flower keeps."""
_SEALING_BYTES: Final = 28  # nonce and tag, see `common.io.vault`
_ENTRY_BYTES: Final = 4096  # of the ledger, at most, and its head
_COUNTS_BYTES: Final = 1 << 16
_REMEDY: Final = "free some space, or name a folder on another disk"


def institution_bytes(study: Study, dimension: int) -> int:
    """At most what one institution writes in a whole study; each vector once.

    Args:
        dimension: number of trained weights.
    """
    if study.local_privacy is None:
        return BASE_BYTES
    rounds = study.training.rounds
    evaluations = sum(evaluation_due(study, r) for r in range(1, rounds + 1))
    vectors = rounds * (4 * dimension + _SEALING_BYTES + 2 * _ENTRY_BYTES)
    return BASE_BYTES + vectors + evaluations * (_COUNTS_BYTES + 2 * _ENTRY_BYTES)


def coordinator_bytes(study: Study, dimension: int, encoder_bytes: int) -> int:
    """At most what a run's folder holds: two checkpoints while one replaces the other, the model.

    Args:
        encoder_bytes: of the base encoder's files.
    """
    settings = study.aggregation
    vectors = 2 + 2 * (settings.optimizer != "fedavg") + (settings.average is not None)
    return BASE_BYTES + 2 * vectors * 4 * dimension + 2 * encoder_bytes


def room(folder: Path, needed: int) -> Finding:
    """Free space where `folder` is, or would be made, against what is needed."""
    free = shutil.disk_usage(existing(folder)).free
    said = f"{free // MIB:,} MiB free, a whole study needs up to {needed // MIB:,} MiB"
    if free < needed:
        return failed(said, _REMEDY)
    return ok(said) if free >= 2 * needed else warning(said, _REMEDY)


def writable(folder: Path) -> Finding:
    """Whether a file can be written, flushed and removed there; nothing stays behind.

    Raises:
        FederationError: it can't.
    """
    folder = folder.absolute()
    where = existing(folder)
    path = where / f".fedner-doctor.{secrets.token_hex(8)}"
    try:
        try:
            write_at(DISK, path, os.urandom(MIB), 0, create=True)
        finally:
            path.unlink(missing_ok=True)
        DISK.fsync_folder(where)
    except OSError as error:
        raise FederationError(
            f"can't be written: {error.strerror or type(error).__name__}",
            place=str(where),
            remedy="give the folder to the user that runs fedner, with mode 0700, on a disk that "
            "is mounted for writing",
        ) from None
    missing = "" if where == folder else f"; {folder} is made at the first start"
    return ok(f"1 MiB written, flushed and removed in {where}{missing}")


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there.

    Raises:
        FederationError: what is there is no folder.
    """
    found = next(p for p in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(p))
    if not found.is_dir():
        raise FederationError(
            "is not a folder", place=str(found), remedy="name another folder, or remove that file"
        )
    return found
