"""The recogniser of this model as a transformers pipeline, with exactly the entities of `ner.pyz`.

    pipeline("fedner-ner", model="FOLDER", trust_remote_code=True)

transformers runs this file only where its user says `trust_remote_code=True`: it is a program, and
so is `ner.pyz`, which does the work. Licence: Apache-2.0.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

from transformers import Pipeline
from transformers.utils import cached_file

ARCHIVE = "ner.pyz"
PACKAGE = "common"
BESIDE = ("decoding.json", "fedner.json")


class NerPipeline(Pipeline):  # type: ignore[misc]
    """Texts to lists of entities: `entity_group`, `word`, `start`, `end`."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        archive, *_ = [_file(self.model.name_or_path, name) for name in (ARCHIVE, *BESIDE)]
        self._code = _module(archive, f"{PACKAGE}.io.standalone")
        self._tagger = self._code.tagger_of(archive.parent, self.model, self.device.type)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], ...]:
        if kwargs:
            raise TypeError(f"this pipeline takes texts alone, not {', '.join(kwargs)}")
        return {}, {}, {}

    def preprocess(self, text: str) -> dict[str, Any]:
        """Sub-words are made with the rules, not here."""
        return {"text": text}

    def _forward(self, given: dict[str, Any]) -> dict[str, Any]:
        (read,) = self._code.find(self._tagger, self._code.as_documents(given["text"]))
        return {"text": given["text"], "entities": read.entities}

    def postprocess(self, read: dict[str, Any]) -> list[dict[str, Any]]:
        """Without a score: the best sequence of tags has none for a single entity."""
        text = read["text"]
        return [
            {"entity_group": e.label, "word": text[e.start : e.end], "start": e.start, "end": e.end}
            for e in read["entities"]
        ]


def _file(model: str, name: str) -> Path:
    """Of a folder, or of a hub's copy on this machine."""
    return Path(str(cached_file(model, name)))


def _module(archive: Path, name: str) -> Any:
    """A module of the archive; another package of the same name stays what it is for others."""

    def ours() -> dict[str, Any]:
        return {n: m for n, m in sys.modules.items() if n.split(".")[0] == PACKAGE}

    others = ours()
    for other in others:
        del sys.modules[other]
    sys.path.insert(0, str(archive))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(archive))
        for own in ours():
            del sys.modules[own]
        sys.modules.update(others)
