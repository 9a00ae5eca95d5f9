"""A document's words in an error that nobody foresaw are in no file and on no terminal."""

import logging
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.service import ReplyCache
from client.session import refuse_unexpected
from client.worker import make_session
from client.worker_log import LIMIT, dressed
from common.config.canonical import study_hash
from common.io.configs import load_site, load_study
from common.model.ner import NerModel
from common.wire import Request, decode_reply, encode
from scripts.cli import app
from tests import tiny

ROOT = Path(__file__).parents[2]
NAME = tiny.INSTITUTIONS[0]
SENTENCE = "Mrs Zaragoza denies chest pain"
SPOILT = """
import logging, sys
from common.model.inputs import Tokenizer
from transformers.utils import logging as transformers_logging
def no_token(self, words):
    transformers_logging.get_logger("transformers.x").error("found " + " ".join(words))
    logging.getLogger("torch._dynamo").error("found " + " ".join(words))
    raise ValueError("no token for " + " ".join(words))
Tokenizer.encode_words = no_token
from client.worker import main
sys.exit(main(sys.argv[1:]))
"""
"""The real worker, with a tokenizer that quotes what it can't read."""


@pytest.fixture(scope="module")
def site(tiny_study, tmp_path_factory):
    """A site file as `fedner data deal` makes it; in its first document stands `SENTENCE`."""
    folder = tmp_path_factory.mktemp("w")
    (folder / "study.yaml").write_text(tiny_study())
    deal = ["data", "deal", str(folder / "study.yaml"), "--out", str(folder / "f")]
    done = CliRunner().invoke(app, deal)
    assert done.exit_code == 0, done.output
    path = folder / "f" / NAME / "site.yaml"
    (path.parent / "train.jsonl").write_text(
        f'{{"doc_id": "a", "text": "{SENTENCE}.", "entities": [], "patient_id": "p"}}\n'
    )
    return path


@pytest.fixture
def written(tmp_path):
    """What goes into `worker.log` in this process."""
    handler = logging.FileHandler(tmp_path / "worker.log")
    dressed(handler)
    logging.getLogger("fedner").addHandler(handler)
    return lambda: (tmp_path / "worker.log").read_text()


@pytest.fixture
def session(site, torch_quiet):
    made = make_session(load_site(site), site.parent)
    yield made
    made.close()


def request_of(site, kind="train", round_=1):
    study = study_hash(load_study(site.parent.parent / "study.yaml"))
    return encode(Request(kind=kind, study=study, round=round_, body=b""))


def test_a_worker_that_ends_by_a_tokenizers_error_says_where_and_not_what(site):
    done = subprocess.run(
        [sys.executable, "-c", SPOILT, str(site)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    log = (site.parent / "state" / "worker.log").read_text()
    assert stat.S_IMODE((site.parent / "state" / "worker.log").stat().st_mode) == 0o600
    audit = (site.parent / "state" / "audit.jsonl").read_text()
    for text in (done.stdout, done.stderr, log, audit):
        assert "Zaragoza" not in text
        assert "denies" not in text
    for line in (6, 7):  # transformers writes twice where the environment has CI
        assert f"its words are withheld: <string>:{line} in no_token" in done.stderr
    for text in (done.stderr, log):
        assert "an error ends the process" in text
        assert "ValueError, most recent call last:" in text
        assert "in no_token" in text
        assert "common/model/ner.py:" in text


@pytest.mark.parametrize("from_a_group", [False, True])
def test_a_request_that_fails_deep_inside_leaves_frames_in_the_log_and_no_words(
    site, session, written, monkeypatch, from_a_group
):
    """A member raised while its group is handled has for context the group, which has it."""

    def quoting(_model, prepared, *_args, **_named):
        error = ValueError(f"can't train on {prepared.documents[0].text}")
        if not from_a_group:
            raise error
        try:
            raise ExceptionGroup(str(error), [error])
        except ExceptionGroup as group:
            raise group.exceptions[0]  # noqa: B904 - see above

    monkeypatch.setattr(NerModel, "fit", quoting)
    reply = session.handle(request_of(site))
    assert decode_reply(reply).refusal == "internal-error"
    assert b"Zaragoza" not in reply
    assert "Zaragoza" not in written()
    for said in ("a train request of round 1 failed", "ValueError, most recent call last:",
                 "client/work.py:", "in quoting", "internal-error: ValueError"):  # fmt: skip
        assert said in written()


def test_what_fails_outside_of_a_session_is_in_the_log_too(written):
    def quoting(_request):
        raise RuntimeError(SENTENCE)

    replies = ReplyCache(quoting, refuse_unexpected)
    assert b"Zaragoza" not in (replies.submit(b"x").result(20) or b"")
    replies.close()
    assert "the worker failed on a request" in written()
    assert "in quoting" in written()
    assert "Zaragoza" not in written()


def test_a_relay_that_asks_nonsense_without_end_does_not_fill_the_log(site, session, written):
    for number in range(200):
        session.handle(b"nonsense %d" % number)
        session.handle(request_of(site, round_=100 + number))
    assert written().count("refused hello of round 0, malformed") == LIMIT
    assert written().count("refused train of round") == LIMIT
    assert len(written().splitlines()) <= 4 * LIMIT
