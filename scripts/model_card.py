"""The card of an exported model: the report of its run, and how to use it."""

import json
from pathlib import Path
from typing import Any, Final

from common.card import front_matter
from common.io.archive import ARCHIVE, NEEDED
from common.io.models import CARD, MANIFEST, STUDY
from common.model.ner import NerModel
from scripts.reporting.head import Facts, head_of
from scripts.reporting.render import to_markdown
from scripts.reporting.run_report import build
from server.run_dir import RunDir

_EXACT: Final = """\
```python
from transformers import pipeline

find = pipeline("fedner-ner", model="FOLDER", trust_remote_code=True)
find("Denies chest pain; on metoprolol.")
```
"""
_PLAIN: Final = """\
```python
find = pipeline("token-classification", model="FOLDER", aggregation_strategy="first")
```
"""


def card_of(source: Path, model: NerModel, facts: Facts, onnx: bool) -> str:
    """README.md of an exported folder: its run's report, or the saved card where there is no run.

    Args:
        source: the saved model's folder.
        onnx: whether `model.onnx` is exported, too.
    """
    told: dict[str, Any] = json.loads((source / MANIFEST).read_text("utf-8"))
    run = _run_of(source, told)
    if run is None:
        head = front_matter(model.study, licence=facts.licence, language=facts.language)
        body = _without_head((source / CARD).read_text("utf-8"))
        return f"{head}{body.rstrip()}\n\n{_use(model, onnx)}"
    _, _, report = to_markdown(build(run)).partition("\n")
    start, mark, rest = report.partition("\n## ")
    said = [n for n in told["notices"] if n not in run.events("start")[0]["notices"]]
    notices = "".join(f"\n> **{notice}**\n" for notice in said)
    head = head_of(run, facts, told["rounds"])
    return f"{head}# {model.study.study}\n{start}{notices}\n{_use(model, onnx)}{mark}{rest}"


def _run_of(source: Path, told: dict[str, Any]) -> RunDir | None:
    """The federated run that made a saved model, if it lies in its folder."""
    if "rounds" not in told or not (source.absolute().parent / STUDY).is_file():
        return None
    run = RunDir.open(source.absolute().parent)
    starts = run.events("start")
    same = bool(starts) and starts[0]["study_sha256"] == told["study_sha256"]
    return run if same else None


def _without_head(card: str) -> str:
    """A card without its metadata; one of an earlier fedner has none."""
    return card.split("---\n", 2)[2] if card.startswith("---\n") else card


def _use(model: NerModel, onnx: bool) -> str:
    unit = "single sentences" if model.study.text.context == "sentence" else "windows of a text"
    told = (
        "\n`model.onnx` has the same weights, for programs without torch: in `input_ids` and "
        "`attention_mask` (and `token_type_ids`), out `logits`, of any batch and length.\n"
    )
    return (
        "## How to use it\n\n"
        "As it was evaluated, by the rules that travel with the model in "
        f"`{ARCHIVE}`; with {', '.join(NEEDED)} and Python 3.11 or newer, without fedner:\n\n"
        f'```\npython FOLDER/{ARCHIVE} --text "Denies chest pain; on metoprolol."\n```\n\n'
        f"or, the same entities, as a pipeline that runs the folder's own code:\n\n{_EXACT}\n"
        f"By transformers' own rules, without any code of the folder's:\n\n{_PLAIN}\n"
        "That is not what was evaluated, and may score far lower: it reads a text as one "
        f"piece, cut off at the tokenizer's longest input, where this model was trained on {unit}, "
        "and takes each word's likeliest tag by itself. (Of the model of fedner's quickstart: F1 "
        "0.86 on whole notes, 0.93 sentence by sentence, 0.94 as fedner reads.)\n"
        f"{told if onnx else ''}\n"
        "`manifest.json` has the hash of every file. With fedner, `fedner verify FOLDER` checks "
        "them and the signature: do that before any code of the folder runs.\n"
    )
