"""Exported folders: what is in them, that they run without fedner, and what checking finds."""

import ast
import io
import json
import os
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from typer.testing import CliRunner

from common.data.jsonl import parse_jsonl, render_jsonl
from common.data.labels import bio_tags
from common.data.sentences import tokenise
from common.identity.manifest import MAX_BYTES, Manifest
from common.identity.signing import verify
from common.io import archive as archives
from common.io import onnx_file
from common.io.archive import NEEDED, archive, sources
from common.io.export import _mark, export_model, foreign_code
from common.io.identity_files import create, open_private, read_public
from common.io.models import load_model
from common.io.standalone import find, load_tagger, main
from scripts.benchmarks.export import hold
from scripts.cli import app
from tests.exported import LABELS, documents, save_trained
from tests.pages import Page
from tests.tiny import FAMILIES, POSITIONS

ROOT = Path(__file__).parents[2]
PACKAGES = os.pathsep.join(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
WHERE_NOTHING_OF_FEDNER_IS = """
import contextlib, importlib.util, io, json, runpy, sys, types

assert not [n for n in ("common", "scripts", "server", "client") if importlib.util.find_spec(n)]
page = json.load(open("page.json"))
said = {"typed": []}
for words in page["commands"]:
    sys.argv, stdout, stderr = words[1:], io.TextIOWrapper(io.BytesIO()), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            runpy.run_path(words[1], run_name="__main__")
        except SystemExit as ended:
            code = ended.code
    said["typed"].append([code, stdout.buffer.getvalue().decode(), stderr.getvalue()])
said["modules"] = {n: getattr(m, "__file__", None) or "" for n, m in sys.modules.items()}
sys.modules["common"] = types.ModuleType("common")
before = {n: m for n, m in sys.modules.items() if n.split(".")[0] == "common"}
space, made = {}, []
for program in page["programs"]:
    exec(program, space)
    made.append(space["find"])
after = {n: m for n, m in sys.modules.items() if n.split(".")[0] == "common"}
said["untouched"] = before == after
texts = [json.loads(line)["text"] for line in open("notes.jsonl")]
exact, plain = made
said["exact"] = exact(texts)
said["plain"] = [[(e["entity_group"], e["start"], e["end"]) for e in plain(t)]
                 for t in page["sentences"]]
said["labels"] = plain.model.config.id2label
print(json.dumps(said))
"""


FENCES = Page(ROOT / "docs/export.md").fences
PROGRAMS = [fence.text for fence in FENCES if fence.info == "python"]
COMMANDS = [
    shlex.split(line)
    for fence in FENCES
    for line in fence.text.splitlines()
    if line.startswith("python ")
]


def fedner(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def made(tiny_encoder, tmp_path_factory):
    """A saved model, exported and signed; and one who signs."""
    base = tmp_path_factory.mktemp("exported")
    model = save_trained(tiny_encoder, base / "model")
    create(base / "identity", "north", None)
    done = fedner("export", model, "--out", base / "out", "--identity", base / "identity")
    assert done.exit_code == 0, done.output
    with_notes(base)
    key = read_public(base / "identity").public_key
    return SimpleNamespace(base=base, model=model, folder=base / "out", key=key, said=done.output)


def sentences_alone():
    """Documents of one sentence."""
    return [d for d in map(tokenise, documents()) if len(d.sentences) == 1]


def with_notes(folder):
    """The files that the page's commands read."""
    (folder / "notes.jsonl").write_text(render_jsonl(documents()), "utf-8")
    (folder / "note.txt").write_text("He has fever.\nOn aspirin.")
    return folder


@pytest.fixture
def copied(made, tmp_path):
    """A copy that a test may spoil."""
    folder = tmp_path / "out"
    subprocess.run(["cp", "-r", made.folder, folder], check=True)
    return folder


# --- without fedner


@pytest.fixture(scope="module")
def elsewhere(made, tmp_path_factory):
    """What the commands and programs of docs/export.md find, as they stand there, in a process that
    has no fedner to import.

    `-S` leaves out the hooks of editable installations; the packages themselves are given.
    """
    place = with_notes(tmp_path_factory.mktemp("elsewhere"))
    (place / "exported").symlink_to(made.folder)
    sentences = [document.text for document in sentences_alone()]
    asked = {"commands": COMMANDS, "programs": PROGRAMS, "sentences": sentences}
    (place / "page.json").write_text(json.dumps(asked))
    keep = {k: os.environ[k] for k in ("PATH", "HOME", "OMP_NUM_THREADS") if k in os.environ}
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", WHERE_NOTHING_OF_FEDNER_IS],
        cwd=place, env={**keep, "PYTHONPATH": PACKAGES, "HF_MODULES_CACHE": str(place / "hf")},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    return SimpleNamespace(found=(place / "found.jsonl").read_bytes(), **said)


def test_the_archive_prints_what_fedner_predicts_byte_for_byte(made, elsewhere, tmp_path):
    done = fedner("predict", made.model, "--input", made.base / "notes.jsonl", "--from", "jsonl",
                  "--out", tmp_path / "own.jsonl")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert elsewhere.found == (tmp_path / "own.jsonl").read_bytes()
    found = {d.doc_id: d for d in parse_jsonl(elsewhere.found.decode(), "found").documents}
    long = found["long"]
    assert [long.text[e.start : e.end] for e in long.entities].count("AS") == 3


@pytest.mark.slow
def test_in_a_fresh_environment_without_fedner_all_is_as_fedner_predicts_and_evaluates(
    made, tmp_path, capsys
):
    """A real one: pip installs torch and transformers into it, and nothing of fedner."""
    notes = with_notes(tmp_path) / "notes.jsonl"
    (tmp_path / "fresh").mkdir()
    model = tmp_path / "model"
    subprocess.run(["cp", "-r", made.model, model], check=True)
    rewritten(model, "tokenizer_config.json", model_max_length=POSITIONS)  # for the plain pipeline
    code = hold(model, documents(), tmp_path / "fresh")
    shutil.rmtree(tmp_path / "fresh" / "venv")  # pytest keeps the rest
    said = capsys.readouterr().out
    assert code == 0, said
    own = ("--input", notes, "--from", "jsonl", "--out", tmp_path / "own.jsonl")
    assert fedner("predict", made.model, *own).exit_code == 0
    printed = (tmp_path / "fresh" / "found.jsonl").read_bytes()
    assert printed == (tmp_path / "own.jsonl").read_bytes()
    assert b'"label"' in printed
    done = fedner("evaluate", made.model, notes, "--format", "jsonl", "--json")
    f1 = json.loads(done.stdout)["entities"]["micro"]["f1"]
    assert f"F1 {f1!r}, fedner evaluate {f1!r}; the folder's pipeline finds the same" in said
    assert 0.3 < f1 < 1


def test_every_command_of_the_page_prints_what_fedner_predicts(
    made, elsewhere, tmp_path, monkeypatch
):
    monkeypatch.chdir(with_notes(tmp_path))
    assert [words[2] for words in COMMANDS] == ["--text", "--input", "--input"]
    for words, (code, printed, notices) in zip(COMMANDS, elsewhere.typed, strict=True):
        assert words[:2] == ["python", "exported/ner.pyz"]
        done = fedner("predict", made.model, *words[2:])
        assert done.exit_code == code == 0, notices
        if "--out" not in words:
            assert printed == done.stdout
            assert json.loads(printed)["text"]
        assert "PRIVACY: NONE" in notices
    assert elsewhere.found == (tmp_path / "found.jsonl").read_bytes()


def test_its_f1_is_that_of_fedner_evaluate(made, elsewhere):
    done = fedner("evaluate", made.model, made.base / "notes.jsonl", "--format", "jsonl", "--json")
    gold = {(d.doc_id, e) for d in documents() for e in d.entities}
    read = parse_jsonl(elsewhere.found.decode(), "found").documents
    found = {(d.doc_id, e) for d in read for e in d.entities}
    f1 = 2 * len(gold & found) / (len(gold) + len(found))
    assert f1 == pytest.approx(json.loads(done.stdout)["entities"]["micro"]["f1"], abs=1e-12)
    assert 0.3 < f1 < 1


def test_a_plain_pipeline_finds_the_same_where_each_words_likeliest_tag_is_the_best(
    made, elsewhere
):
    tagger = load_tagger(made.folder, "cpu")
    alike = 0
    for document, plain in zip(sentences_alone(), elsewhere.plain, strict=True):
        windows = tagger.windows([document])
        if tagger.tags([document], windows) == [likeliest(tagger, windows)]:
            (found,) = tagger.entities([document], windows)
            assert plain == [[e.label, e.start, e.end] for e in found]
            alike += bool(found)
    assert alike >= 4
    assert elsewhere.labels == {str(at): tag for at, tag in enumerate(bio_tags(LABELS))}


def likeliest(tagger, windows):
    """Tag of each word of a sentence by itself, with no rule between them."""
    (window,) = windows
    with torch.inference_mode():
        logits = tagger.module(**tagger.collate([window], None)).logits[0]
    return logits[list(window.positions)].argmax(-1).tolist()


def test_the_pipeline_of_the_folder_itself_finds_the_same_as_the_archive(elsewhere):
    read = parse_jsonl(elsewhere.found.decode(), "found").documents
    expected = [
        [{"entity_group": e.label, "word": d.text[e.start : e.end], "start": e.start, "end": e.end}
         for e in d.entities] for d in read
    ]  # fmt: skip
    assert elsewhere.exact == expected
    assert elsewhere.untouched, "another package named common is not what it was"


def test_nothing_of_fedner_is_imported_but_what_the_archive_holds(made, elsewhere):
    ours = {n: f for n, f in elsewhere.modules.items() if n.split(".")[0] in ("common", "scripts")}
    inside = {f.partition("ner.pyz/")[2] for f in ours.values()}
    assert inside == set(sources()), "a module that is never imported, or one that is not inside"
    strange = ("flwr", "opacus", "peft", "grpc", "cryptography", "pydantic", "dp_accounting")
    assert not [n for n in elsewhere.modules if n.split(".")[0] in strange]


def test_the_archive_says_which_package_is_missing(made, tmp_path):
    done = subprocess.run([sys.executable, "-S", "-P", made.folder / "ner.pyz", "--text", "a"],
                          cwd=tmp_path, env={}, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 1
    assert "needs the packages torch, transformers" in done.stderr
    assert "missing here" in done.stderr


def test_the_archive_says_that_it_needs_a_newer_transformers(made, tmp_path):
    (tmp_path / "transformers.py").write_text('__version__ = "4.57.3"')
    command = [sys.executable, "-P", made.folder / "ner.pyz", "--text", "a"]
    env = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs transformers 5 or newer: 4.57.3 is here" in done.stderr


def test_the_archive_runs_where_a_hubs_cache_has_a_link_to_each_file(
    made, tmp_path, monkeypatch, capsysbinary
):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    for number, path in enumerate(sorted(made.folder.iterdir())):
        (tmp_path / "blobs" / str(number)).hardlink_to(path)
        (tmp_path / "snapshot" / path.name).symlink_to(f"../blobs/{number}")
    monkeypatch.setattr("sys.argv", ["ner.pyz", "--text", "On aspirin.", "--device", "cpu"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(tmp_path / "snapshot" / "ner.pyz"), run_name="__main__")
    assert ended.value.code == 0
    found = json.loads(capsysbinary.readouterr().out)
    assert [e["label"] for e in found["entities"]] == ["Medication"]
    checked = fedner("verify", tmp_path / "snapshot", "--key", made.key)
    assert "manifest.json: is a link, or no file" in str(checked.exception)


@pytest.mark.parametrize("given", ["--text", "--input"])
def test_a_text_is_read_as_fedner_reads_it(made, tmp_path, capsysbinary, given):
    text = "He has fever.\nOn aspirin."
    (tmp_path / "note.txt").write_text(text)
    words = [given, text if given == "--text" else str(tmp_path / "note.txt")]
    done = fedner("predict", made.model, *words, "--out", tmp_path / "own.jsonl")
    assert done.exit_code == 0, done.output
    assert main(made.folder, [*words, "--device", "cpu"]) == 0
    assert capsysbinary.readouterr().out == (tmp_path / "own.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("model.safetensors", lambda b: b[:-1] + bytes([b[-1] ^ 1]), "not the ones"),
        ("decoding.json", lambda b: b.replace(b"Gene", b"Genes"), "labels are not those"),
        ("decoding.json", lambda b: b.replace(b"v1", b"v9"), "is not of this version"),
        ("fedner.json", lambda b: b"{}", "does not name notices and weights"),
        ("fedner.json", lambda b: b"x", "can't be read"),
        ("config.json", lambda b: b"x", "no token classifier"),
    ],
)
def test_the_archive_refuses_a_folder_that_is_not_whole(made, copied, capsys, name, spoil, said):
    (copied / name).write_bytes(spoil((made.folder / name).read_bytes()))
    assert main(copied, ["--text", "On aspirin.", "--device", "cpu"]) == 5
    caught = capsys.readouterr()
    assert said in caught.err
    assert caught.out == ""


def test_a_folder_without_weights_is_no_exported_model(copied, capsys):
    (copied / "model.safetensors").unlink()
    assert main(copied, ["--text", "On aspirin.", "--device", "cpu"]) == 5
    assert f"error {copied}/model.safetensors: can't be read: FileNotF" in capsys.readouterr().err


def test_what_can_not_be_read_is_an_error_with_its_place(made, tmp_path, capsys):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    assert main(made.folder, ["--input", str(tmp_path / "latin.txt")]) == 4
    assert f"{tmp_path}/latin.txt: can't be read as UTF-8" in capsys.readouterr().err


def test_what_is_found_is_written_whole_and_for_its_user_alone(made, tmp_path):
    path = tmp_path / "found.jsonl"
    path.write_text("before")
    path.chmod(0o644)
    before = os.umask(0)
    try:
        assert main(made.folder, ["--text", "On aspirin.", "--out", str(path)]) == 0
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())["text"] == "On aspirin."
    assert [p.name for p in tmp_path.iterdir()] == ["found.jsonl"]


def test_a_disk_that_is_full_leaves_what_was_found_before(made, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "found.jsonl"
    path.write_text("before")
    monkeypatch.setattr("common.io.standalone.os.fsync", full)
    assert main(made.folder, ["--text", "On aspirin.", "--out", str(path)]) == 4
    assert f"error {path}: can't be written: No space left on device" in capsys.readouterr().err
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["found.jsonl"]


@pytest.mark.parametrize("place", ["nowhere/found.jsonl", "folder", "link"])
def test_where_nothing_can_be_written_is_an_error_with_its_place(made, tmp_path, capsys, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(os.devnull)
    assert main(made.folder, ["--text", "On aspirin.", "--out", str(tmp_path / place)]) == 4
    assert f"error {tmp_path / place}: can't be written: " in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "link"]


# --- the archive


def test_the_archive_needs_no_other_package_than_it_says():
    allowed = {*NEEDED, "common", *sys.stdlib_module_names}
    for name, data in sources().items():
        for node in ast.walk(ast.parse(data)):
            if isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                named = [node.module]
            else:
                continue
            assert {n.split(".")[0] for n in named} <= allowed, name


def test_the_archive_holds_the_modules_of_this_installation_unchanged():
    with zipfile.ZipFile(io.BytesIO(archive())) as zipped:
        assert zipped.namelist() == sorted(zipped.namelist())
        for name in zipped.namelist():
            if name != "__main__.py":
                assert zipped.read(name) == (ROOT / name).read_bytes()
        assert "common/metrics/decode.py" in zipped.namelist()
        assert "common/data/__init__.py" in zipped.namelist()


def test_the_archive_has_the_same_bytes_wherever_and_whenever_it_is_made(monkeypatch, tmp_path):
    before = archive()
    subprocess.run(["cp", "-r", ROOT / "common", tmp_path], check=True)
    monkeypatch.setattr(archives, "_root", lambda: tmp_path)
    assert (tmp_path / "common/errors.py").stat().st_mtime != (
        ROOT / "common/errors.py"
    ).stat().st_mtime
    assert archive() == before


def test_a_module_that_is_named_anywhere_in_a_source_is_in_the_archive(monkeypatch, tmp_path):
    subprocess.run(["cp", "-r", ROOT / "common", tmp_path], check=True)
    monkeypatch.setattr(archives, "_root", lambda: tmp_path)
    with (tmp_path / "common/metrics/decode.py").open("a") as file:
        file.write("\n\ndef late():\n    from common.data import split\n")
    assert "common/data/split.py" in sources()


# --- the folder


def test_the_folder_holds_what_its_manifest_names(made):
    manifest = json.loads((made.folder / "manifest.json").read_text())
    there = {path.name for path in made.folder.iterdir()}
    assert there == {*manifest["files"], "manifest.json"}
    assert {"model.safetensors", "config.json", "tokenizer.json", "study.yaml", "fedner.json",
            "README.md", "ner.pyz", "decoding.json", "ner_pipeline.py"} <= there  # fmt: skip
    told = json.loads((made.folder / "fedner.json").read_text())
    assert manifest["study_sha256"] == told["study_sha256"]
    assert manifest["signed"]["public_key"] == made.key
    assert made.key in made.said


def test_nothing_is_exported_without_a_word_about_who_signs(made, tmp_path):
    for options in ((), ("--unsigned", "--identity", made.base / "identity")):
        done = fedner("export", made.model, "--out", tmp_path / "out", *options)
        assert "exactly one of --identity FOLDER" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_an_unsigned_folder_says_so_loudly(made, tmp_path):
    done = fedner("export", made.model, "--out", tmp_path / "out", "--unsigned")
    assert "UNSIGNED" in done.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["signed"] is None
    checked = fedner("verify", tmp_path / "out", "--key", made.key)
    assert "nobody signed it" in str(checked.exception)
    assert checked.exception.exit_code == 10
    checked = fedner("verify", tmp_path / "out", "--unsigned")
    assert checked.exit_code == 0
    assert "NO SIGNATURE WAS CHECKED" in checked.stderr


@pytest.mark.parametrize(
    ("family", "train"), [("distilbert", "full"), ("roberta", "full"), ("bert", "lora")]
)
def test_every_family_finds_in_its_exported_folder_what_the_saved_model_finds(
    torch_quiet, tmp_path, family, train
):
    encoder = FAMILIES[family](tmp_path / family)
    model = save_trained(encoder, tmp_path / "model", train)
    export_model(model, tmp_path / "out", lambda _: "", None)
    bare = [replace(d, entities=()) for d in documents()]
    saved = load_model(model, "cpu")
    prepared = saved.prepare(bare)
    found = find(load_tagger(tmp_path / "out", "cpu"), bare)
    assert any(d.entities for d in found)
    assert [d.entities for d in found] == saved.predict(prepared)
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert not [name for name in weights if "lora" in name]


def test_an_exported_folder_is_a_model_for_fedner_and_is_not_exported_again(made, tmp_path):
    own, theirs = (fedner("predict", m, "--text", "On aspirin.") for m in (made.model, made.folder))
    assert own.stdout == theirs.stdout
    done = fedner("export", made.folder, "--out", tmp_path / "out", "--unsigned")
    assert "was exported already" in str(done.exception)


def test_what_is_there_is_never_overwritten(made, tmp_path):
    (tmp_path / "out").mkdir()
    done = fedner("export", made.model, "--out", tmp_path / "out", "--unsigned")
    assert "is there already" in str(done.exception)


def test_an_export_that_breaks_off_leaves_nothing(made, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("common.io.export.load_tagger", full)
    done = fedner("export", made.model, "--out", tmp_path / "out", "--unsigned")
    assert isinstance(done.exception, OSError)
    assert list(tmp_path.iterdir()) == []


# --- checking it


def test_a_signed_folder_verifies_by_key_by_file_and_by_roster(made, tmp_path):
    done = fedner("verify", made.folder, "--key", made.key)
    assert done.exit_code == 0
    assert f"signed with {made.key}" in done.output
    assert "calls itself north; nobody but the signer says so" in done.output
    assert "those of this fedner, byte for byte" in done.output
    assert fedner("verify", made.folder, "--key", made.base / "identity").exit_code == 0
    create(tmp_path / "other", "other", None)
    roster = {"coordinator": read_public(tmp_path / "other").public_key,
              "institutions": [{"name": "north", "public_key": made.key}]}  # fmt: skip
    (tmp_path / "roster.yaml").write_text(yaml.safe_dump(roster))
    by = ("--roster", tmp_path / "roster.yaml")
    assert fedner("verify", made.folder, *by, "--by", "north").exit_code == 0
    assert "is signed with the key" in str(fedner("verify", made.folder, *by).exception)
    assert "does not name south" in str(
        fedner("verify", made.folder, *by, "--by", "south").exception
    )


def test_a_signer_is_named_as_the_roster_names_it(made, copied, tmp_path):
    create(tmp_path / "mallory", "coordinator", None)
    resign(copied, tmp_path / "mallory")
    key = read_public(tmp_path / "mallory").public_key
    roster = {"coordinator": made.key, "institutions": [{"name": "south", "public_key": key}]}
    (tmp_path / "roster.yaml").write_text(yaml.safe_dump(roster))
    by = ("--roster", tmp_path / "roster.yaml")
    done = fedner("verify", copied, *by, "--by", "south")
    assert f"signed by south of {tmp_path}/roster.yaml with {key}" in done.output
    assert "the signer calls itself coordinator" in done.output
    done = fedner("verify", made.folder, *by)
    assert f"signed by coordinator of {tmp_path}/roster.yaml with {made.key}" in done.output


def link_out(folder, name):
    (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)


def spoil_a_byte(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "said", "code"),
    [
        (spoil_a_byte, "model.safetensors is not what the manifest says", 5),
        (lambda f: (f / "vocab.txt").unlink(), "vocab.txt is missing", 5),
        (lambda f: (f / "modeling.py").write_text(""), "'modeling.py' is not in the manifest", 5),
        (lambda f: (f / "code").mkdir(), "'code' is not in the manifest", 5),
        (lambda f: (f / "manifest.json").unlink(), "no exported model is here", 5),
        (lambda f: (f / "manifest.json").write_text("{}"), "is no manifest", 5),
        (lambda f: link_out(f, "study.yaml"), "study.yaml is a link, or no file", 5),
        (lambda f: link_out(f, "manifest.json"), "manifest.json: is a link, or no file", 5),
    ],
)
def test_what_was_changed_lost_or_added_is_named(made, copied, spoil, said, code):
    spoil(copied)
    done = fedner("verify", copied, "--key", made.key)
    assert said in str(done.exception)
    assert done.exception.exit_code == code


def test_all_faults_of_a_folder_are_named_at_once(made, copied):
    spoil_a_byte(copied)
    (copied / "vocab.txt").unlink()
    done = fedner("verify", copied, "--unsigned")
    assert "model.safetensors is not" in str(done.exception)
    assert "vocab.txt is missing" in str(done.exception)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["files"]["README.md"].update(size=1),
        lambda m: m["files"].pop("README.md"),
        lambda m: m.update(study="other"),
        lambda m: m.update(fedner="9"),
        lambda m: m["signed"].update(name="south"),
        lambda m: m["signed"].update(signature=64 * "00"),
    ],
)
def test_a_manifest_that_was_changed_after_it_was_signed_is_found(made, copied, change):
    content = json.loads((copied / "manifest.json").read_text())
    change(content)
    (copied / "manifest.json").write_text(json.dumps(content, indent=2) + "\n")
    done = fedner("verify", copied, "--key", made.key)
    assert "not over what the manifest says" in str(done.exception)
    assert done.exception.exit_code == 10


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: text + " ",
        lambda text: text.replace("{", "{ ", 1),
        lambda text: text.replace('"format"', '"format": "fedner exported model v1", "format"'),
        lambda text: text.replace('"fedner"', '"\\u0066edner"', 1),
        lambda text: json.dumps(dict(reversed(json.loads(text).items())), indent=2) + "\n",
        lambda text: turned(text, "files"),
    ],
    ids=["end", "blank", "double", "escape", "order", "files"],
)
@pytest.mark.parametrize("options", [("--unsigned",), ("--key", "")], ids=["unsigned", "key"])
def test_a_manifest_has_one_form_and_not_a_byte_more(made, copied, rewrite, options):
    path = copied / "manifest.json"
    before = path.read_text()
    path.write_text(rewrite(before))
    assert path.read_text() != before
    done = fedner("verify", copied, *[word or made.key for word in options])
    assert f"{path}: is no manifest of an exported model" in str(done.exception)
    assert done.exception.exit_code == 5


def test_a_manifest_that_is_too_long_is_not_read_in_part(made, copied):
    path = copied / "manifest.json"
    manifest = Manifest.from_bytes(path.read_bytes())
    names = [f"f{number}" for number in range(1500)]
    each, rest = divmod(MAX_BYTES - len(long_one(manifest, names)), len(names))
    names = [name + "x" * (each + (at < rest)) for at, name in enumerate(names)]
    path.write_bytes(long_one(manifest, names))
    assert path.stat().st_size == MAX_BYTES
    assert Manifest.from_bytes(path.read_bytes()).files.keys() == set(names)
    path.write_bytes(path.read_bytes() + b"and more")
    done = fedner("verify", copied, "--unsigned")
    assert f"has more than {MAX_BYTES} bytes" in str(done.exception)


def long_one(manifest, names):
    return replace(manifest, files=dict.fromkeys(names, manifest.files["README.md"])).to_bytes()


def rewritten(folder, name, **keys):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


EVIL = {"fedner-ner": {"impl": "evil.NerPipeline", "pt": ["AutoModelForTokenClassification"]}}
LOADED = {"AutoTokenizer": [None, "evil.Tokenizer"], "AutoConfig": "else/where--evil.Config"}


@pytest.mark.parametrize(
    ("smuggle", "said"),
    [
        (lambda f: (f / "evil.py").write_text(""), "'evil.py', a file of no export"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "'adapter_config.json', a file"),
        (lambda f: (f / "ner_pipeline.py").write_text("a = 1"), ": ner_pipeline.py"),
        (lambda f: (f / "ner.pyz").write_text("a = 1"), ": ner.pyz"),
        (lambda f: rewritten(f, "config.json", custom_pipelines=EVIL), "config.json: custom_pip"),
        (lambda f: rewritten(f, "config.json", auto_map=LOADED), "config.json: auto_map"),
        (lambda f: rewritten(f, "config.json", attribute_map={"auto_map": "x"}), ": attribute_map"),
        (lambda f: rewritten(f, "config.json", sub={"a": [{"auto_map": {}}]}), ": auto_map"),
        (lambda f: rewritten(f, "config.json", attn_implementation="a/b"), ": attn_implementation"),
        (lambda f: rewritten(f, "tokenizer_config.json", auto_map=LOADED), "n: auto_map"),
    ],
)  # fmt: skip
def test_no_other_code_passes_for_fedners_own(made, copied, smuggle, said):
    assert foreign_code(copied) == ()
    smuggle(copied)
    resign(copied, made.base / "identity")
    done = fedner("verify", copied, "--key", made.key)
    assert done.exit_code == 0, done.output
    assert "those of this fedner" not in done.output
    assert "OTHER CODE THAN THIS FEDNER'S" in done.stderr
    assert said in done.stderr


def test_a_model_whose_encoder_names_code_is_not_exported(made, tmp_path):
    subprocess.run(["cp", "-r", made.model, tmp_path / "model"], check=True)
    rewritten(tmp_path / "model", "tokenizer_config.json", auto_map=LOADED)
    done = fedner("export", tmp_path / "model", "--out", tmp_path / "out", "--unsigned")
    assert "other code than fedner's: tokenizer_config.json: auto_map" in str(done.exception)
    assert done.exception.exit_code == 5
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def resign(folder, identity):
    """As its signer would, who means ill."""
    manifest = Manifest.from_bytes((folder / "manifest.json").read_bytes())
    files = {path.name: _mark(path) for path in folder.iterdir() if path.name != "manifest.json"}
    signed = replace(manifest, files=files).signed_by(open_private(identity, None))
    (folder / "manifest.json").write_bytes(signed.to_bytes())


def turned(text, name):
    content = json.loads(text)
    content[name] = dict(reversed(content[name].items()))
    return json.dumps(content, indent=2) + "\n"


def test_another_signer_is_not_taken_for_the_one_expected(made, copied, tmp_path):
    create(tmp_path / "other", "north", None)
    manifest = Manifest.from_bytes((copied / "manifest.json").read_bytes())
    other = manifest.signed_by(open_private(tmp_path / "other", None))
    (copied / "manifest.json").write_bytes(other.to_bytes())
    done = fedner("verify", copied, "--key", made.key)
    assert f"{copied}/manifest.json: is signed with the key" in str(done.exception)
    assert done.exception.exit_code == 10


def test_a_signature_of_another_use_is_none_over_a_manifest(made):
    manifest = Manifest.from_bytes((made.folder / "manifest.json").read_bytes())
    message = manifest._message(manifest.signed)
    assert verify(made.key, b"fedner exported model v1", message, manifest.signed.signature)
    assert not verify(made.key, b"fedner sign-off v1", message, manifest.signed.signature)


@pytest.mark.parametrize("options", [(), ("--unsigned", "--key", "a"), ("--unsigned", "--by", "a")])
def test_what_to_check_against_must_be_said(made, options):
    done = fedner("verify", made.folder, *options)
    assert done.exception.exit_code == 2


# --- the card


def test_the_card_is_one_that_model_hubs_read(made):
    card = ModelCard.load(made.folder / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "token-classification"
    assert card.data.license == "unknown"
    assert "federated-learning" in card.data.tags
    assert "secure-aggregation" not in card.data.tags
    assert card.data.eval_results is None
    for words in ("PRIVACY: NONE", "ner.pyz", "not what was evaluated, and may score far lower",
                  "Not a medical device"):  # fmt: skip
        assert words in card.text
    saved = ModelCard.load(made.model / "README.md")
    assert saved.data.base_model == card.data.base_model == "tiny-bert"


# --- ONNX


def test_onnx_without_its_packages_is_refused_before_anything_is_made(made, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = fedner("export", made.model, "--out", tmp_path / "out", "--unsigned", "--onnx")
    assert "onnxruntime not installed" in str(done.exception)
    assert "'.[onnx]'" in str(done.exception)
    assert done.exception.exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_onnx_agrees_with_torch_at_other_shapes_than_the_traced(family, tmp_path):
    for package in onnx_file.PACKAGES:
        pytest.importorskip(package)
    model = save_trained(FAMILIES[family](tmp_path / family), tmp_path / "model")
    done = fedner("export", model, "--out", tmp_path / "out", "--unsigned", "--onnx")
    assert done.exit_code == 0, done.output
    assert "model.onnx: logits differ from torch's by at most" in done.output
    loaded = load_tagger(tmp_path / "out")
    windows = loaded.windows([tokenise(d) for d in documents()])
    for some in (windows[:1], windows[1:6], windows[-3:]):
        batch = loaded.collate(some, None)
        assert (
            onnx_file._compare(loaded, [batch], tmp_path / "out" / "model.onnx").difference < 1e-4
        )


@pytest.mark.slow
def test_onnx_that_differs_is_refused_and_leaves_nothing(made, tmp_path, monkeypatch):
    for package in onnx_file.PACKAGES:
        pytest.importorskip(package)
    monkeypatch.setattr(onnx_file, "LARGEST_DIFFERENCE", 1e-9)
    done = fedner("export", made.model, "--out", tmp_path / "out", "--unsigned", "--onnx")
    assert "logits differ from torch's by" in str(done.exception)
    assert list(tmp_path.iterdir()) == []
