"""The command line as its users meet it: help, exit codes, formats, Ctrl-C."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import typer.main

from common import __version__
from common.data.flatten import flatten
from common.data.records import Document, span
from common.data.sentences import tokenise
from common.io.configs import load_roster, load_site
from common.io.corpus import load_documents, save_documents
from common.io.identity_files import create
from common.io.models import load_model
from common.io.withdrawn_file import own_sides
from common.metrics.entities import LabelCounts, as_json, count_entities, report
from common.model.ner import set_threads
from scripts import cli
from tests import tiny
from tests.integration.test_provision_cli import FEDERATION

ROOT = Path(__file__).parents[2]
LABELS = ("Disease", "Symptom", "Medication")
TEXT = "Denies chest pain; on metoprolol 50 mg.\nKnown hypertension (since 2011), no fever."


class Result:
    """How one command ended."""

    def __init__(self, code, captured):
        self.code = code
        self.out, self.err = captured.out, captured.err
        self.said = " ".join(self.err.split())


@pytest.fixture
def fedner(monkeypatch, capsys):
    """Runs `fedner` in this process, through its entry point."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fedner", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
        except SystemExit as leave:
            code = leave.code or 0
        else:
            code = 0
        result = Result(code, capsys.readouterr())
        assert "Traceback" not in result.out + result.err
        return result

    yield run
    set_threads(1)


@pytest.fixture(scope="module")
def study_file(tiny_study, tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "study.yaml"
    path.write_text(tiny_study())
    return path


@pytest.fixture(scope="module")
def run_folder(study_file):
    """A run made by the real command."""
    folder = study_file.parent / "run"
    arguments = ["fedner", "simulate", study_file, "--out", folder, "--no-alone", "--threads", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(map(str, arguments)))
        with contextlib.suppress(SystemExit):
            cli.main()
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    return folder


@pytest.fixture(scope="module")
def model_folder(run_folder):
    return run_folder / "model"


# --- help


def _verbs(command, path=()):
    if hasattr(command, "list_commands"):
        for name in command.list_commands(None):
            yield from _verbs(command.get_command(None, name), (*path, name))
    else:
        yield path, command


VERBS = dict(_verbs(typer.main.get_command(cli.app)))


def test_the_verbs_are_those_documented():
    assert {" ".join(path) for path in VERBS} == {
        "simulate", "server", "client", "train", "evaluate", "predict", "export", "verify",
        "watch", "report", "config check", "config reference", "runs list", "runs show",
        "runs compare",
        "data inspect", "data synth", "data deal", "encoder add", "encoder verify",
        "encoder list", "encoder directions", "budget show", "budget verify", "budget export",
        "budget recover", "identity new", "identity show", "roster make", "roster verify",
        "roster pin", "provision", "enrol request", "enrol approve", "enrol list", "enrol revoke",
        "enrol leave", "enrol show", "policy sign", "policy verify", "policy check",
        "log show", "log verify", "doctor", "health",
    }  # fmt: skip


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_every_verbs_help_shows_an_example_that_fits_it(fedner, path):
    shown = fedner(*path, "--help")
    assert shown.code == 0
    text = " ".join(shown.out.replace("│", " ").split())
    assert "Example: fedner " + " ".join(path) in text
    help_text = VERBS[path].help
    example = shlex.split(help_text.split("Example: fedner ")[1].splitlines()[0])
    options = {name for p in VERBS[path].params for name in (*p.opts, *p.secondary_opts)}
    assert {word for word in example if word.startswith("--")} <= options
    for word in example:
        if word.startswith("configs/"):
            assert (ROOT / word).is_file()


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_every_verbs_help_says_what_each_argument_and_option_is(fedner, path):
    """With a click that typer does not know, those of arguments are lost without a word."""
    shown = " ".join(fedner(*path, "--help").out.translate({ord("│"): " ", ord("`"): ""}).split())
    for parameter in VERBS[path].params:
        assert parameter.help, parameter.name
        assert " ".join(parameter.help.replace("`", "").split()[:3]) in shown, parameter.name


def test_help_names_the_exit_codes_and_nothing_at_all_is_help(fedner):
    text = " ".join(fedner("--help").out.split())
    for code in ("2 usage", "3 configuration", "4 data", "5 encoder", "6 policy", "10 identity",
                 "130 interrupt"):  # fmt: skip
        assert code in text
    assert "Usage" in fedner().out + fedner().err


def test_the_version_is_shown(fedner):
    result = fedner("--version")
    assert (result.code, result.out) == (0, f"fedner {__version__}\n")


# --- exit codes


@pytest.fixture
def dealt(fedner, study_file, tmp_path):
    assert fedner("data", "deal", study_file, "--out", tmp_path / "f").code == 0
    return tmp_path / "f"


def test_wrong_usage_exits_with_2(fedner, study_file, model_folder, tmp_path):
    for arguments in (
        ("nonsense",),
        ("simulate",),
        ("simulate", study_file, "--engine", "spark"),
        ("predict", model_folder),
        ("predict", model_folder, "--text", "a", "--input", "b"),
        ("predict", model_folder, "--text", "a", "--to", "xml"),
        ("predict", model_folder, "--text", "a", "--to", "brat"),
        ("predict", model_folder, "--input", "b", "--from", "xml"),
        ("evaluate", model_folder, "b", "--format", "xml"),
        ("train", study_file, "--on", "nobody"),
        ("data", "deal", study_file, "--out", tmp_path),
    ):
        result = fedner(*arguments)
        assert result.code == 2, arguments
        assert result.err


def test_a_wrong_configuration_exits_with_3(fedner, study_file, dealt, tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(study_file.read_text().replace("privacy: none", "privacy: some", 1))
    site = next(dealt.glob("*/site.yaml"))
    text = site.read_text().replace("127.0.0.1:9192", "10.0.0.1:9192")
    (site.parent / "far.yaml").write_text(text)
    for arguments in (
        ("config", "check", tmp_path / "absent.yaml"),
        ("config", "check", wrong),
        ("simulate", wrong),
        ("simulate", dealt / "study.yaml"),
        ("client", site.parent / "far.yaml"),
        ("server", study_file, "--address", "0.0.0.0:9192", "--out", tmp_path / "run"),
    ):
        result = fedner(*arguments)
        assert result.code == 3, (arguments, result.err)
        assert "error" in result.said
    assert "remedy" in fedner("config", "check", wrong).said


def test_unreadable_data_exits_with_4(fedner, model_folder, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"doc_id": "a"}\n')
    (tmp_path / "latin.txt").write_bytes(b"\xe9\xff")
    for arguments in (
        ("data", "inspect", tmp_path / "absent", "--format", "conll"),
        ("data", "inspect", broken, "--format", "jsonl"),
        ("evaluate", model_folder, broken, "--format", "jsonl"),
        ("predict", model_folder, "--input", broken, "--from", "jsonl"),
        ("predict", model_folder, "--input", tmp_path / "latin.txt"),
        ("predict", model_folder, "--input", tmp_path / "absent.txt"),
    ):
        result = fedner(*arguments)
        assert result.code == 4, (arguments, result.err)
        assert "error" in result.said


def test_a_missing_encoder_or_model_exits_with_5(fedner, tiny_study, tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(tiny_study(encoder=f"{{name: absent, weights_sha256: {'a' * 64}}}"))
    for arguments in (
        ("encoder", "verify", "absent"),
        ("encoder", "add", tmp_path / "absent"),
        ("simulate", study, "--out", tmp_path / "run"),
        ("server", study, "--out", tmp_path / "run"),
        ("train", study, "--out", tmp_path / "run"),
        ("evaluate", tmp_path, study),
        ("predict", tmp_path, "--text", "a"),
    ):
        result = fedner(*arguments)
        assert result.code == 5, (arguments, result.err)
        assert "remedy" in result.said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("key", ["accept_privacy_none", "accept_secure_aggregation_none"])
def test_a_site_whose_policy_refuses_its_study_exits_with_6(fedner, dealt, key):
    site = next(dealt.glob("*/site.yaml"))
    assert fedner("config", "check", site).code == 0
    site.write_text(site.read_text().replace(f"{key}: true", f"{key}: false"))
    result = fedner("config", "check", site)
    assert result.code == 6
    assert key in result.said


def test_who_has_withdrawn_is_in_nothing_that_a_sites_verbs_read(fedner, dealt):
    site = next(dealt.glob("*/site.yaml"))
    before = own_sides(load_site(site), LABELS, site.parent)
    gone = {before.train[0].doc_id, before.test[0].doc_id}
    lines = "".join(f"document {one}\n" for one in sorted(gone))
    (site.parent / "gone.txt").write_text(lines)
    site.write_text(f"{site.read_text()}exclude: gone.txt\n")
    after = own_sides(load_site(site), LABELS, site.parent)
    for old, new in ((before.train, after.train), (before.test, after.test)):
        assert {d.doc_id for d in new} == {d.doc_id for d in old} - gone
        assert len(new) == len(old) - 1


def test_a_sites_verbs_refuse_where_who_has_withdrawn_cannot_be_known(
    fedner, dealt, model_folder, tmp_path
):
    site = next(dealt.glob("*/site.yaml"))
    site.write_text(f"{site.read_text()}exclude: gone.txt\n")
    for arguments in (
        ("train", site, "--out", tmp_path / "run"),
        ("evaluate", model_folder, site),
        ("data", "inspect", site),
    ):
        assert fedner(*arguments).code == 4, arguments


def test_one_user_is_refused_unless_the_site_accepts_it(fedner, dealt):
    site = next(dealt.glob("*/site.yaml"))
    site.write_text(site.read_text().replace("accept_one_user: true", "accept_one_user: false"))
    result = fedner("client", site)
    assert result.code == 6
    assert "accept_one_user" in result.said
    assert not (site.parent / "state").exists()


def test_a_fault_of_ours_is_not_disguised_as_the_users(fedner, monkeypatch):
    def explode():
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", lambda **_: explode())
    with pytest.raises(ZeroDivisionError):
        fedner("encoder", "list")


# --- predictions


@pytest.mark.parametrize("manifest", ["", "[]", "null", "{}"])
def test_a_model_whose_manifest_is_damaged_exits_with_5(fedner, model_folder, tmp_path, manifest):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    (folder / "fedner.json").write_text(manifest)
    refused = fedner("predict", folder, "--text", TEXT)
    assert refused.code == 5
    assert str(folder) in refused.err
    assert "remedy" in refused.err


def _known(model_folder, documents):
    """Entities as the model itself finds them, per document."""
    model = load_model(model_folder, "cpu")
    return model.predict(model.prepare([replace(d, entities=()) for d in documents]))


def _surfaces(document):
    return [(e.label, "".join(document.text[e.start : e.end].split())) for e in document.entities]


@pytest.fixture
def corpora(fedner, study_file, tmp_path, model_folder):
    """The same gold documents in every format that may be read, by format."""
    fedner("data", "deal", study_file, "--out", tmp_path / "f")
    gold = load_documents(tmp_path / "f" / tiny.INSTITUTIONS[1] / "test.jsonl", "jsonl").documents
    plain = [replace(d, sentences=None, tokens=None, patient_id=None) for d in gold]
    save_documents(plain, tmp_path / "in.jsonl", "jsonl")
    save_documents(plain, tmp_path / "in-brat", "brat")
    words = fedner(
        "predict", model_folder, "--input", tmp_path / "in.jsonl", "--from", "jsonl",
        "--to", "conll", "--out", tmp_path / "in.conll",
    )  # fmt: skip
    assert words.code == 0, words.err
    return {
        "jsonl": tmp_path / "in.jsonl",
        "brat": tmp_path / "in-brat",
        "conll": tmp_path / "in.conll",
    }


@pytest.mark.parametrize("to", ["jsonl", "conll", "brat"])
@pytest.mark.parametrize("from_", ["jsonl", "conll", "brat"])
def test_predictions_go_from_every_format_to_every_format(
    fedner, corpora, model_folder, tmp_path, from_, to
):
    target = tmp_path / "out"
    result = fedner(
        "predict", model_folder, "--input", corpora[from_], "--from", from_,
        "--to", to, "--out", target,
    )  # fmt: skip
    assert result.code == 0, result.err
    given = load_documents(corpora[from_], from_).documents
    found = load_documents(target, to).documents
    known = _known(model_folder, given)
    assert [d.doc_id for d in found] == [d.doc_id for d in given]
    assert sum(map(len, known)) > 0
    for document, source, entities in zip(found, given, known, strict=True):
        assert _surfaces(document) == _surfaces(replace(source, entities=entities))
        if to != "conll":
            assert (document.text, document.entities) == (source.text, entities)


@pytest.mark.parametrize("to", ["jsonl", "conll", "brat"])
@pytest.mark.parametrize("given_as", ["--text", "--input"])
def test_predictions_in_a_plain_text_keep_its_characters(
    fedner, model_folder, tmp_path, to, given_as
):
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    value = TEXT if given_as == "--text" else tmp_path / "text.txt"
    target = tmp_path / "out"
    result = fedner("predict", model_folder, given_as, value, "--to", to, "--out", target)
    assert result.code == 0, result.err
    (found,) = load_documents(target, to).documents
    source = Document(doc_id="text", text=TEXT)
    (entities,) = _known(model_folder, [source])
    assert _surfaces(found) == _surfaces(replace(source, entities=entities))
    if to == "conll":
        assert "".join(found.text.split()) == "".join(TEXT.split())
    else:
        assert (found.doc_id, found.text, found.entities) == ("text", TEXT, entities)


class Terminal:
    """A pseudo-terminal as standard output."""

    def __init__(self):
        self._ours, theirs = os.openpty()
        self.file = os.fdopen(theirs, "w")

    def read(self):
        self.file.close()
        chunks = []
        with contextlib.suppress(OSError):  # the other end is closed
            while chunk := os.read(self._ours, 4096):
                chunks.append(chunk)
        os.close(self._ours)
        return b"".join(chunks).decode()


def test_a_terminal_gets_highlighted_entities_and_no_control_of_the_notes(
    fedner, model_folder, monkeypatch
):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal.file)
    monkeypatch.setattr(sys, "argv", ["fedner", "predict", str(model_folder), "--text",
                                      f"\x1b]0;owned\x07{TEXT}"])  # fmt: skip
    with contextlib.suppress(SystemExit):
        cli.main()
    shown = terminal.read()
    (entities,) = _known(model_folder, [Document(doc_id="text", text=f"\x1b]0;owned\x07{TEXT}")])
    assert len(entities) == shown.count("|")
    assert "\u241b]0;owned\u2407" in shown
    assert not {"\x1b]", "\x07"} & {shown[i : i + n] for i in range(len(shown)) for n in (1, 2)}
    assert "found: Disease" in shown
    assert "Not a medical device" in shown


def test_a_file_or_a_pipe_gets_jsonl_and_a_highlighted_text_if_asked(
    fedner, model_folder, tmp_path
):
    assert fedner("predict", model_folder, "--text", TEXT).out.startswith('{"doc_id"')
    assert "found: Disease" in fedner("predict", model_folder, "--text", TEXT, "--to", "text").out
    refused = fedner(
        "predict", model_folder, "--text", TEXT, "--to", "text", "--out", tmp_path / "a"
    )
    assert refused.code == 2


def test_a_page_of_predictions_bears_the_notices_of_its_model(fedner, model_folder, tmp_path):
    arguments = ("predict", model_folder, "--text", TEXT, "--to", "html")
    assert fedner(*arguments, "--out", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert fedner(*arguments).out == page
    for said in json.loads((model_folder / "fedner.json").read_text())["notices"]:
        assert said.split(".")[0] in page


def with_notices(model_folder, folder, notices):
    shutil.copytree(model_folder, folder)
    told = json.loads((folder / "fedner.json").read_text())
    (folder / "fedner.json").write_text(json.dumps({**told, "notices": notices}))
    return folder


def test_what_a_strangers_model_says_of_itself_is_text(fedner, model_folder, tmp_path):
    """It neither ends the command nor commands the terminal."""
    said = ["[/x] [red]PRIVACY[/red]: NONE", "\x1b]0;owned\x07 \u202e"]
    model = with_notices(model_folder, tmp_path / "model", said)
    result = fedner("predict", model, "--text", TEXT)
    assert result.code == 0
    assert "[/x] [red]PRIVACY[/red]: NONE" in result.said
    assert not set("\x1b\x07\u202e") & set(result.err)


@pytest.mark.parametrize("notices", [None, "PRIVACY: NONE", [1], {"a": "b"}])
def test_notices_that_are_no_list_of_texts_are_refused(fedner, model_folder, tmp_path, notices):
    model = with_notices(model_folder, tmp_path / "model", notices)
    result = fedner("predict", model, "--text", TEXT)
    assert "expected a list of texts" in result.said
    assert (result.code, result.out) == (fedner("predict", tmp_path, "--text", TEXT).code, "")


def test_an_unfinished_model_is_called_one_with_every_prediction(fedner, model_folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(model_folder, model)
    manifest = json.loads((model / "fedner.json").read_text())
    manifest["notices"] = ["UNFINISHED. The model after round 1.", *manifest["notices"]]
    (model / "fedner.json").write_text(json.dumps(manifest))
    result = fedner("predict", model, "--text", TEXT, "--to", "html")
    assert result.out.index("UNFINISHED") < result.out.index("Denies")
    assert "UNFINISHED" in result.err


@pytest.mark.parametrize("to", ["jsonl", "conll"])
def test_standard_output_holds_the_document_and_nothing_else(fedner, model_folder, tmp_path, to):
    result = fedner("predict", model_folder, "--text", TEXT, "--to", to)
    assert result.code == 0
    (tmp_path / "out").write_text(result.out, "utf-8")
    assert len(load_documents(tmp_path / "out", to).documents) == 1
    assert "PRIVACY: NONE" in result.err


def test_annotations_in_the_input_have_no_influence(fedner, corpora, model_folder, tmp_path):
    gold = load_documents(corpora["jsonl"], "jsonl").documents
    assert any(d.entities for d in gold)
    foreign = [replace(d, entities=(*d.entities, span(0, 2, "Gene"))) for d in gold]
    save_documents(foreign, tmp_path / "foreign.jsonl", "jsonl")
    save_documents([replace(d, entities=()) for d in gold], tmp_path / "bare.jsonl", "jsonl")
    outputs = [
        fedner("predict", model_folder, "--input", path, "--from", "jsonl").out
        for path in (corpora["jsonl"], tmp_path / "bare.jsonl", tmp_path / "foreign.jsonl")
    ]
    assert outputs[0] == outputs[1] == outputs[2] != ""


def test_scored_predictions_are_what_evaluate_says_to_the_digit(
    fedner, corpora, model_folder, tmp_path
):
    arguments = ("--input", corpora["jsonl"], "--from", "jsonl", "--out", tmp_path / "out")
    assert fedner("predict", model_folder, *arguments).code == 0
    evaluated = fedner("evaluate", model_folder, corpora["jsonl"], "--format", "jsonl", "--json")
    labels = load_model(model_folder, "cpu").labels
    counts = LabelCounts()
    gold = load_documents(corpora["jsonl"], "jsonl").documents
    found = load_documents(tmp_path / "out", "jsonl").documents
    for one, other in zip(gold, found, strict=True):
        counts += count_entities(flatten(tokenise(one))[0].entities, other.entities, labels)
    own = as_json(report(counts))
    assert json.loads(evaluated.out)["entities"] == own
    assert own["micro"]["f1"] > 0


def test_evaluate_says_what_the_run_recorded(fedner, run_folder, study_file):
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()
    recorded = [e for e in map(json.loads, lines) if e["event"] == "evaluation"][-1]
    result = fedner("evaluate", run_folder / "model", study_file, "--json")
    scores = json.loads(result.out)
    assert scores["entities"] == recorded["entities"]
    assert scores["tokens"] == recorded["tokens"]


def test_evaluate_says_of_which_model_and_whose_documents(fedner, run_folder, study_file, dealt):
    model = run_folder / "model"
    told = json.loads((model / "fedner.json").read_text())["weights_sha256"]
    name = tiny.INSTITUTIONS[0]
    for data, whose in ((dealt / name / "site.yaml", name), (study_file, None)):
        said = json.loads(fedner("evaluate", model, data, "--json").out)
        assert (said["weights_sha256"], said["institution"]) == (told, whose)


# --- other verbs


def test_training_alone_and_pooled_saves_a_model_that_evaluates(
    fedner, dealt, study_file, tmp_path
):
    site = dealt / tiny.INSTITUTIONS[0] / "site.yaml"
    for path in (study_file, dealt / "study.yaml"):
        short = path.read_text().replace("local_epochs: 4", "local_epochs: 1")
        path.with_name("short.yaml").write_text(short)
    study_file = study_file.with_name("short.yaml")
    site.write_text(site.read_text().replace("../study.yaml", "../short.yaml"))
    for number, arguments in enumerate(
        [(study_file,), (study_file, "--on", tiny.INSTITUTIONS[0]), (site,)]
    ):
        folder = tmp_path / f"run{number}"
        assert fedner("train", *arguments, "--out", folder, "--threads", 1).code == 0
        result = fedner("evaluate", folder / "model", site, "--json")
        assert result.code == 0
        assert json.loads(result.out)["entities"]["micro"]["support"] > 0


def test_generated_notes_are_inspected_and_their_counts_agree(fedner, tmp_path):
    arguments = ("--out", tmp_path / "notes", "--institutions", 1, "--patients", 3)
    assert fedner("data", "synth", *arguments).code == 0
    (path,) = (tmp_path / "notes").iterdir()
    documents = load_documents(path, "jsonl").documents
    result = fedner("data", "inspect", path, "--format", "jsonl")
    assert result.code == 0
    (row,) = [line for line in result.out.splitlines() if path.name in line]
    numbers = row.split()[1:]
    assert numbers[:2] == [str(len(documents)), "3"]


def test_an_encoder_is_added_verified_and_listed(fedner, tiny_encoder, monkeypatch, tmp_path):
    monkeypatch.setenv("FEDNER_HOME", str(tmp_path))
    sha256 = tiny.sha256(tiny_encoder / "model.safetensors")
    added = fedner("encoder", "add", tiny_encoder, "--name", "mine")
    assert added.code == 0
    assert f"weights_sha256: {sha256}" in added.out
    assert fedner("encoder", "verify", "mine").code == 0
    assert "mine" in fedner("encoder", "list").out
    (tmp_path / "encoders" / "mine" / "config.json").write_text("{}")
    assert fedner("encoder", "verify", "mine").code == 5


# --- interruption


def test_ctrl_c_ends_a_running_simulation_with_130(tiny_study, tmp_path):
    study, run = tmp_path / "study.yaml", tmp_path / "run"
    study.write_text(tiny_study(training="{rounds: 100000, batch_size: 8, learning_rate: 1e-3}"))
    with subprocess.Popen(
        [Path(sys.executable).parent / "fedner", "simulate", study, "--out", run],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not (run / "checkpoint.npz").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 130, said.decode()
    assert b"Traceback" not in said
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
    assert not (run / "model").exists()


def test_what_supervises_an_institution_holds_no_torch():
    """One process for each side, for months: the worker alone needs it."""
    code = (
        "import sys; from typer.testing import CliRunner; from scripts.cli import app\n"
        "for verb in ('client', 'health', 'log'):\n"
        "    assert CliRunner().invoke(app, [verb, '--help']).exit_code == 0\n"
        "print('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


# --- keys under a passphrase, and rosters


@pytest.fixture
def passphrase(monkeypatch, tmp_path):
    """A folder to work in, with a file of one."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "passphrase"
    path.write_text("seven bridges over a frozen river\n")
    path.chmod(0o600)
    return ("--passphrase-file", path)


def test_a_model_is_signed_with_a_sealed_key_and_verified_by_its_file(
    fedner, model_folder, passphrase
):
    assert fedner("identity", "new", "coordinator", "--out", "coordinator", *passphrase).code == 0
    given = ("--out", "exported", "--identity", "coordinator")
    assert fedner("export", model_folder, *given, *passphrase).code == 0
    verified = fedner("verify", "exported", "--key", "coordinator/public.json")
    assert (verified.code, "the signer calls itself coordinator" in verified.out) == (0, True)


def test_a_second_request_under_a_passphrase_has_the_same_keys(fedner, passphrase, tmp_path):
    shutil.copy(ROOT / "configs" / "quickstart.yaml", tmp_path / "study.yaml")
    (tmp_path / "FEDERATION.yaml").write_text(FEDERATION)
    made = fedner("provision", "FEDERATION.yaml", "--out", "federation", "--no-passphrase")
    assert made.code == 0
    kit = next((tmp_path / "federation" / "sites").iterdir())
    asks = ("enrol", "request", kit / "site.yaml", "--federation", "northern", *passphrase)
    texts = []
    for name in ("one.json", "two.json"):
        assert fedner(*asks, "--out", name).code == 0
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1]


def test_a_sign_off_names_the_roster_too(fedner, study_file, passphrase, tmp_path):
    for name in ("ethics", "coordinator", *tiny.INSTITUTIONS):
        create(tmp_path / name, name, None)
    members = [w for n in tiny.INSTITUTIONS for w in ("--institution", f"{n}/public.json")]
    made = fedner("roster", "make", "--coordinator", "coordinator", *members, "--out", "r.yaml")
    assert made.code == 0
    signs = ("policy", "sign", study_file, "--key", "ethics", "--no-passphrase", "--as", "ethics")
    roster = load_roster(tmp_path / "r.yaml").sha256
    assert roster in fedner(*signs, "--roster", "r.yaml", "--out", "ethics.json").out
    assert roster in (tmp_path / "ethics.json").read_text()
    assert roster not in fedner(*signs, "--out", "without.json").out


# --- groups of patients


def test_scores_by_group_add_up_to_all(fedner, run_folder, dealt, study_file, tmp_path):
    lines = [line for p in dealt.glob("*/test.jsonl") for line in p.read_text().splitlines()]
    patients = sorted({json.loads(line)["patient_id"] for line in lines})
    assert len(patients) > 2
    rows = [f"{p}\t{'fm'[i % 2]}\tall\n" for i, p in enumerate(patients[1:])]
    (tmp_path / "groups.tsv").write_text("patient\tsex\teach\n" + "".join(rows))
    arguments = ("evaluate", run_folder / "model", study_file, "--groups", tmp_path / "groups.tsv")
    scores = json.loads(fedner(*arguments, "--smallest", 2, "--json").out)
    sex, each = scores["groups"]["attributes"]
    assert [g["units"] for g in each["groups"]] == [len(patients) - 1]
    assert each["unstated"] == sex["unstated"] == 1
    assert each["gaps"] == {}
    supports = [g["entities"]["micro"]["support"] for g in sex["groups"] if g["entities"]]
    whole = each["groups"][0]["entities"]["micro"]["support"]
    assert 0 < sum(supports) <= whole < scores["entities"]["micro"]["support"]
    few = [g for g in sex["groups"] if g["units"] < 2]
    assert all(g["entities"] is None for g in few)
    shown = fedner(*arguments).out
    for words in ("by sex", "not stated", "too few", "no two groups to compare"):
        assert words in shown


def test_groups_of_nobody_who_is_scored_are_refused(fedner, run_folder, dealt, tmp_path):
    site = dealt / tiny.INSTITUTIONS[0] / "site.yaml"
    (tmp_path / "groups.tsv").write_text("patient\tsex\nsomebody\tf\n")
    result = fedner("evaluate", run_folder / "model", site, "--groups", tmp_path / "groups.tsv")
    assert result.code == 4
    assert "has none of the" in result.err
