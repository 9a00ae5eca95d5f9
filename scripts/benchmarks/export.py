"""An exported model in a fresh environment without fedner: are its entities fedner's own?

    scripts/bench export RUN [--study configs/quickstart.yaml] [--keep FOLDER]

Exports RUN/model, makes a virtual environment with torch, transformers, numpy and safetensors of
constraints.txt and nothing of fedner, and there reads all held-out documents of the study: with
`ner.pyz`, with the folder's own pipeline, and with a plain one of transformers. Exit code 1 unless
`ner.pyz` prints, byte for byte, what `fedner predict` does, its F1 is the one of `fedner evaluate`,
and the folder's pipeline finds the same entities.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from common.data.jsonl import parse_jsonl, render_jsonl
from common.data.records import Document, Entity, span
from common.io.archive import ARCHIVE, NEEDED
from common.io.configs import load_study
from common.io.datasets import simulated_sides
from common.io.export import export_model
from common.io.models import load_model
from common.metrics.entities import LabelCounts, count_entities, report
from common.model.ner import Prepared
from scripts.console import quiet_libraries
from scripts.model_card import card_of
from scripts.reporting.head import Facts

_ROOT: Final = Path(__file__).parents[2]
_PLAIN: Final = """
import json, sys
from transformers import pipeline

find = pipeline("token-classification", model=sys.argv[1], aggregation_strategy="first")
exact = pipeline("fedner-ner", model=sys.argv[1], trust_remote_code=True)
longest = find.tokenizer.model_max_length


def of(text, start, end, find=find):
    found = find(text[start:end]) if text[start:end].strip() else []
    return [(start + e["start"], start + e["end"], e["entity_group"]) for e in found]


for line in open("found.jsonl", encoding="utf-8"):
    read = json.loads(line)
    text = read["text"]
    apart = [entity for start, end in read["sentences"] for entity in of(text, start, end)]
    cut = len(find.tokenizer(text, truncation=False)["input_ids"]) > longest
    said = {"whole": of(text, 0, len(text)), "sentences": apart, "cut": cut}
    said["exact"] = of(text, 0, len(text), exact)
    print(json.dumps(said, default=int))
"""
_NOTHING_OF_FEDNER: Final = """
import importlib.util

names = ("common", "scripts", "server", "client", "flwr")
there = [name for name in names if importlib.util.find_spec(name)]
assert not there, there
"""

Found = Sequence[tuple[Entity, ...]]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench export")
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("--study", type=Path, default=_ROOT / "configs/quickstart.yaml")
    parser.add_argument("--keep", type=Path, help="folder to make, and leave")
    options = parser.parse_args(argv)
    quiet_libraries()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="export-")))
        folder = (options.keep or scratch / "a").absolute()
        folder.mkdir(parents=True)
        sides = simulated_sides(load_study(options.study), options.study.parent)
        documents = [d for side in sides.values() for d in side.test]
        return hold(options.run / "model", documents, folder)


def hold(source: Path, documents: Sequence[Document], folder: Path) -> int:
    """Compare, and print the comparison.

    Args:
        source: a saved model.
        folder: an empty one: `out`, `venv` and `found.jsonl`, which `ner.pyz` wrote, stay in it.

    Returns:
        The exit code.
    """
    model = load_model(source, "cpu")
    prepared = model.prepare(documents)
    evaluated = model.evaluate(prepared)
    bare = model.prepare([replace(d, entities=()) for d in documents])
    own = model.predict(bare)
    pairs = zip(bare.documents, own, strict=True)
    lines = render_jsonl([replace(d, entities=e) for d, e in pairs]).encode()
    export_model(source, folder / "out", lambda m: card_of(source, m, Facts(), False), None)
    (folder / "notes.jsonl").write_text(render_jsonl(documents), "utf-8")
    packages = _elsewhere(folder)
    alone = (folder / "found.jsonl").read_bytes()
    read = [d.entities for d in parse_jsonl(alone.decode(), "found.jsonl").documents]
    plain = [json.loads(line) for line in (folder / "plain.jsonl").read_text("utf-8").splitlines()]
    rows = {
        "`fedner predict`": own,
        f"`{ARCHIVE}`": read,
        "pipeline `fedner-ner`": _of_pipeline(plain, "exact"),
        "plain pipeline, `first`": _of_pipeline(plain, "whole"),
        "the same, sentence by sentence": _of_pipeline(plain, "sentences"),
    }
    cut = sum(line["cut"] for line in plain)
    _report(model.labels, prepared, rows, packages, cut)
    same = alone == lines
    f1 = _f1(model.labels, prepared, read)
    piped = _of_pipeline(plain, "exact") == own
    print(f"{ARCHIVE} against fedner predict: {'the same bytes' if same else 'DIFFERENT'}; "
          f"F1 {f1!r}, fedner evaluate {evaluated.f1!r}; the folder's pipeline finds "
          f"{'the same' if piped else 'OTHERS'}")  # fmt: skip
    return 0 if same and piped and f1 == evaluated.f1 else 1


def _elsewhere(folder: Path) -> list[str]:
    """Make the environment and read the notes in it; what is installed there."""
    python = folder / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    pins = (_ROOT / "constraints.txt").read_text().splitlines()
    torch = next(pin for pin in pins if pin.startswith("torch=="))
    install = [python, "-m", "pip", "install", "-q", "--no-input"]
    subprocess.run([*install, torch], check=True)  # by its exact version: a CPU build is then taken
    subprocess.run([*install, "-c", _ROOT / "constraints.txt", *NEEDED], check=True)
    listed = _typed(folder, [python, "-m", "pip", "list", "--format=freeze"])
    _typed(folder, [python, "-c", _NOTHING_OF_FEDNER])
    notes = ["--input", "notes.jsonl", "--from", "jsonl", "--out", "found.jsonl"]
    _typed(folder, [python, f"out/{ARCHIVE}", *notes])
    said = _typed(folder, [python, "-c", _PLAIN, "out"])
    (folder / "plain.jsonl").write_text(said, "utf-8")
    return listed.split()


def _typed(folder: Path, command: Sequence[str | Path]) -> str:
    """Carried out in the folder, with nothing of this process's own on its path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FEDNER"))}
    environment = {**kept, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder / "modules")}
    done = subprocess.run(
        command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def _of_pipeline(lines: Sequence[Mapping[str, Any]], what: str) -> Found:
    return [tuple(span(*entity) for entity in line[what]) for line in lines]


def _f1(labels: Sequence[str], prepared: Prepared, found: Found) -> float:
    """Micro-averaged, of entities with exact boundaries and label."""
    counts = LabelCounts()
    for document, entities in zip(prepared.documents, found, strict=True):
        counts += count_entities(document.entities, entities, labels)
    return report(counts)["micro"].f1


def _report(
    labels: Sequence[str],
    prepared: Prepared,
    rows: dict[str, Found],
    packages: Sequence[str],
    cut: int,
) -> None:
    own = next(iter(rows.values()))
    print(f"{len(prepared.documents)} held-out documents, {cut} of them cut off by the pipeline; "
          f"{len(packages)} packages in the environment, fedner not among them\n")  # fmt: skip
    print("| found by | entities | as `fedner predict` | only there | missing there | F1 |")
    print("|---|---:|---:|---:|---:|---:|")
    ours = _marked(own)
    for name, found in rows.items():
        theirs = _marked(found)
        f1 = _f1(labels, prepared, found)
        print(f"| {name} | {len(theirs)} | {len(theirs & ours)} | {len(theirs - ours)} "
              f"| {len(ours - theirs)} | {f1:.4f} |")  # fmt: skip
    print()


def _marked(found: Found) -> set[tuple[int, Entity]]:
    return {(number, entity) for number, entities in enumerate(found) for entity in entities}
