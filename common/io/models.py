"""Saved models: a folder that `transformers` loads as it is, with the study it came from."""

import copy
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from common import __version__
from common.card import front_matter
from common.config.canonical import study_hash, study_yaml
from common.config.load import parse_study
from common.config.study import Model, Study
from common.errors import EncoderError
from common.io.atomic import write_bytes, write_json
from common.io.encoders import TOKENIZER_FILES, WEIGHTS, file_sha256
from common.model.build import merged
from common.model.ner import NerModel
from common.privacy.notice import notices
from common.privacy.report import protection_section
from common.privacy.statement import statement

MANIFEST: Final = "fedner.json"
STUDY: Final = "study.yaml"
CARD: Final = "README.md"


def save_model(
    model: NerModel,
    encoder_dir: Path,
    folder: Path,
    facts: Mapping[str, Any],
    said: tuple[str, ...] = (),
) -> None:
    """Write weights (adapters merged), configuration, tokenizer, study, manifest and card.

    Args:
        encoder_dir: where the tokenizer's files lie.
        facts: what the manifest says of the run beside study, privacy and hashes.
        said: notices of this very model, before those of its study.
    """
    folder.mkdir(parents=True, exist_ok=True)
    module = merged(copy.deepcopy(model.module)).cpu()
    module.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (encoder_dir / name).is_file():
            shutil.copyfile(encoder_dir / name, folder / name)
    study = model.study
    write_bytes(folder / STUDY, study_yaml(study).encode())
    card = front_matter(study) + _card(study, (*said, *notices(study)))
    write_bytes(folder / CARD, card.encode())
    write_json(
        folder / MANIFEST,
        {
            "fedner": __version__,
            "study": study.study,
            "study_sha256": study_hash(study),
            "privacy": study.privacy_mechanism,
            "protection": _protection(study),
            "secure_aggregation": study.secure_adversary,
            "notices": [*said, *notices(study)],
            "weights_sha256": file_sha256(folder / WEIGHTS),
            **facts,
        },
    )


def _protection(study: Study) -> dict[str, Any]:
    """What each institution's mechanism promises; empty without one."""
    if study.local_privacy is None:
        return {}
    return {name: statement(study, name).as_dict() for name in study.federation.institutions}


def load_model(folder: Path, device: str = "auto") -> NerModel:
    """Load a saved model for prediction and evaluation.

    Raises:
        EncoderError: not a model that fedner saved, or weights that are not the manifest's.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        if not isinstance(manifest, dict):
            raise ValueError(MANIFEST)
        study = parse_study((folder / STUDY).read_text("utf-8"), str(folder / STUDY))
        found = file_sha256(folder / WEIGHTS)
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"not a model saved by fedner: {type(error).__name__}",
            place=str(folder),
            remedy="give the `model` folder of a run, such as runs/…/model",
        ) from None
    if manifest.get("weights_sha256") != found:
        raise EncoderError(
            "the weights are not the ones that the manifest names",
            place=str(folder / WEIGHTS),
            remedy="take the folder again from where the run wrote it",
        )
    whole = Model(train="full", dropout=study.model.dropout)
    return NerModel(folder, replace(study, model=whole), device)


def _card(study: Study, notes: tuple[str, ...]) -> str:
    said = "\n".join(f"> **{notice}**\n>" for notice in notes)
    return (
        f"# {study.study}\n\n{said}\n\n"
        f"Named-entity recogniser for {', '.join(study.task.labels)}, fine-tuned from "
        f"`{study.encoder.name}` by federated learning over "
        f"{len(study.federation.institutions)} institutions with fedner {__version__}.\n\n"
        f"Study `{study_hash(study)}`; see `{STUDY}` and `{MANIFEST}`.\n\n"
        f"{protection_section(study)}"
        "Not a medical device: no output of this model is a diagnosis.\n"
    )
