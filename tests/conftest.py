"""What all tests share: nothing of the user's own is read, nothing is sent, little is computed."""

import logging
import os
import re
import signal
import sys
import threading
from pathlib import Path

import pytest

from tests import tiny

ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "NO_COLOR": "1",
    "COLUMNS": "200",
}


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Warnings that nobody here can mend, a SIGINT that children can be interrupted with, and
    short folders: a socket's path has 107 bytes.
    """
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # "gw1", its folder "popen-gw1"
        config.option.basetemp = str(Path(config.option.basetemp).with_name(worker[2:]))
    # a shell that starts the suite in the background makes it, and all its children, ignore SIGINT
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # peft 0.21 reads a property that transformers 5.23 deprecates
    config.addinivalue_line(
        "filterwarnings", "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
    )


@pytest.fixture
def tmp_path(request, tmp_path_factory) -> Path:
    """As pytest's own, with a shorter name: below it lie sockets, whose paths have 107 bytes."""
    return tmp_path_factory.mktemp(re.sub(r"\W", "_", request.node.name)[:12])


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory):
    """A home of the tests' own; children inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv("FEDNER_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("FLWR_HOME", str(tmp_path_factory.mktemp("flower")))
        yield os.environ


@pytest.fixture(autouse=True)
def own_log():
    """What a run set up for its log is undone, so that `caplog` hears the next test."""
    logger = logging.getLogger("fedner")
    before = (logger.handlers[:], logger.level, logger.propagate)
    hooks = (sys.excepthook, threading.excepthook, sys.unraisablehook, logging.raiseExceptions)
    factory = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(factory)
    sys.excepthook, threading.excepthook, sys.unraisablehook, logging.raiseExceptions = hooks
    for handler in logger.handlers:
        if handler not in before[0]:
            handler.close()
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.fixture(scope="session")
def torch_quiet(environment):
    """One thread, and none of the libraries' chatter; for tests that build models."""
    import torch

    from scripts.console import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(1)
    return torch


@pytest.fixture(scope="session")
def tiny_encoder(torch_quiet, tmp_path_factory) -> Path:
    """Folder of a tiny BERT with random weights, the same in every session."""
    return tiny.bert_folder(tmp_path_factory.mktemp("encoder") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_study(tiny_encoder):
    """Makes the YAML text of a small study on `tiny_encoder`; see `tests.tiny.study_text`."""

    def make(**changes: str) -> str:
        return tiny.study_text(tiny_encoder, **changes)

    return make


@pytest.fixture(scope="session")
def simulated_run(tiny_study, tmp_path_factory) -> Path:
    """Folder of a small run by the real command, with all baselines; `study.yaml` beside it."""
    from typer.testing import CliRunner

    from scripts.cli import app

    folder = tmp_path_factory.mktemp("simulated")
    (folder / "study.yaml").write_text(tiny_study())
    arguments = ["simulate", folder / "study.yaml", "--out", folder / "run", "--pooled"]
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return folder / "run"
