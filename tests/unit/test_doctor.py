"""Parts of `fedner doctor` that need no federation: how checks are carried out, and their rules."""

import json
import os
import shutil
import time
from pathlib import Path

import httpx
import pytest

from common.config.load import parse_study
from common.errors import DataError, FederationError
from common.io.flower_internals import flower_environment
from scripts.doctor import disk, network, versions
from scripts.doctor.checks import Check, Finding, carry_out, failed, has_failed, ok, warning
from scripts.doctor.network import Route, proxy_for, shown
from scripts.verbs.doctor import as_text, lines


def done(look, **more):
    (outcome,) = carry_out([Check(group="g", looked_at="x", look=look, **more)])
    return outcome


def raising(error: BaseException):
    def look() -> Finding:
        raise error

    return look


def test_a_check_that_raises_is_a_failure_of_its_own_and_the_next_is_carried_out() -> None:
    looks = [raising(ZeroDivisionError("by zero")), lambda: ok("fine"), raising(SystemExit(3))]
    outcomes = list(carry_out(Check(group="g", looked_at="x", look=look) for look in looks))
    assert [o.finding.state for o in outcomes] == ["failed", "ok", "failed"]
    assert outcomes[0].finding.said == "ZeroDivisionError: by zero"
    assert all(o.finding.remedy for o in outcomes if o.finding.state == "failed")
    assert has_failed(outcomes)
    assert not has_failed(outcomes[1:2])


def test_an_error_of_ours_is_told_with_place_and_remedy() -> None:
    error = DataError("malformed", place="notes.txt:3", remedy="mend line 3")
    finding = done(raising(error)).finding
    assert (finding.said, finding.remedy) == ("notes.txt:3: malformed", "mend line 3")
    gone = done(raising(FileNotFoundError(2, "No such file or directory", "a/b"))).finding
    assert gone.said == "a/b: No such file or directory"


def test_an_unforeseen_error_of_a_discreet_check_shows_no_text() -> None:
    patient = raising(ValueError("Mrs Example, born 1931"))
    assert done(patient, discreet=True).finding.said == "ValueError"
    assert "Example" in done(patient).finding.said


def test_a_check_that_hangs_is_a_failure_within_its_limit() -> None:
    outcome = done(lambda: time.sleep(60) or ok("late"), limit_s=0.2)
    assert outcome.finding.state == "failed"
    assert "no answer within 0.2 s" in outcome.finding.said
    assert outcome.seconds < 5


def test_nothing_is_out_of_order_without_a_remedy() -> None:
    for make in (warning, failed):
        with pytest.raises(ValueError, match="without a remedy"):
            make("broken", "")


def test_a_documents_id_is_for_a_terminal_alone() -> None:
    for place in ("case-4711", "ward/case-4711"):
        error = DataError("names no patient", place=place, remedy="name it")
        outcome = done(raising(error), discreet=True)
        assert outcome.finding.state == "failed"
        assert "case-4711" not in as_text([outcome], "institution")
    assert "case-4711" in " ".join(line.plain for line in lines(outcome, private=True))


def test_what_is_private_is_for_a_terminal_alone() -> None:
    outcome = done(lambda: ok("can be read", private="24 documents"))
    assert "24 documents" in " ".join(line.plain for line in lines(outcome, private=True))
    assert "24" not in " ".join(line.plain for line in lines(outcome, private=False))
    told = json.loads(as_text([outcome], "institution"))
    assert "24" not in json.dumps(told["checks"])
    assert (told["ok"], told["failed"], told["checks"][0]["said"]) == (1, 0, "can be read")


PROXIES = [
    {},
    {"https_proxy": "http://p:1"},
    {"http_proxy": "http://p:1"},
    {"all_proxy": "p:1"},
    {"HTTPS_PROXY": "http://u:w@p:1", "NO_PROXY": "fl.example.org"},
    {"https_proxy": "http://p:1", "no_proxy": "example.org"},
    {"https_proxy": "http://p:1", "no_proxy": ".example.org"},
    {"https_proxy": "http://p:1", "no_proxy": ".fl.example.org"},
    {"https_proxy": "http://p:1", "no_proxy": "xample.org"},
    {"https_proxy": "http://p:1", "no_proxy": "FL.Example.ORG, other"},
    {"https_proxy": "http://p:1", "no_proxy": "fl.example.org:9192"},
    {"https_proxy": "http://p:1", "no_proxy": "fl.example.org:443"},
    {"https_proxy": "http://p:1", "no_proxy": "localhost,192.0.2.10,::1"},
    {"https_proxy": "http://p:1", "no_proxy": "192.0.2.0/24"},
    {"https_proxy": "http://p:1", "no_proxy": "*"},
    {"https_proxy": "http://p:1", "no_proxy": "https://fl.example.org"},
    {"https_proxy": "http://p:1", "no_proxy": "http://fl.example.org"},
]
HOSTS = ["fl.example.org", "example.org", "localhost", "192.0.2.10", "::1"]


@pytest.mark.parametrize("variables", PROXIES, ids=lambda v: ",".join(f"{k}={v[k]}" for k in v))
def test_the_proxy_is_the_one_that_flowers_http_client_takes(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    routes = [Route.of(host, 9192) for host in HOSTS]
    for name, value in flower_environment(Path("home")).items():
        monkeypatch.setenv(name, value)
    with httpx.Client() as client:
        for route in routes:
            transport = client._transport_for_url(httpx.URL(f"https://{route}"))
            assert (route.proxy is not None) == (transport is not client._transport), route
        for url in ("http://127.0.0.1:9092", "https://127.0.0.1:9092", "http://localhost:1"):
            assert client._transport_for_url(httpx.URL(url)) is client._transport


@pytest.mark.parametrize("mark", ["#", "/", "?", "@/", "%", "#1@"])
def test_a_password_that_makes_no_url_is_not_shown_either(mark: str) -> None:
    for url in (f"http://alice:sec{mark}ret@proxy:3128", f"http://alice:12{mark}34@proxy:3128"):
        try:
            said = shown(url)
        except FederationError as error:
            said = f"{error} {error.remedy}"
        assert not any(piece in said for piece in ("sec", "ret", ":12", "34", "alice")), said


def test_a_proxys_password_is_never_shown() -> None:
    proxy = "http://user:s3cret@proxy.example.org:3128"
    route = Route(host="fl.example.org", port=9192, proxy=proxy)
    assert proxy_for("x", 1, {"https": proxy}) == proxy
    said = f"{shown(proxy)} {route!r} {route} {network.proxy_finding(route).said}"
    assert "proxy.example.org:3128" in said
    assert "s3cret" not in said
    assert "user:" not in said


def test_a_name_that_does_not_resolve_and_one_that_is_none_are_failures() -> None:
    for name in ("no-such-host.invalid", "a..b", "x" * 300):
        with pytest.raises(FederationError, match="does not resolve") as caught:
            network.resolves(name)
        assert caught.value.remedy
    assert "127.0.0.1" in network.resolves("localhost").said


def test_libraries_are_compared_with_what_is_declared_and_what_was_tested(tmp_path: Path) -> None:
    pinned = tmp_path / "constraints.txt"
    pinned.write_text("# pins\nnumpy==2.0.0\ntorch==2.9.0\nnot a pin\n")
    installed = {"numpy": "2.0.0", "torch": "2.9.0", "flwr": "1.41.0"}.get
    asked = ["numpy>=2", "torch>=2.9", 'pytest; extra == "dev"']
    assert versions.libraries(asked, pinned, installed).state == "ok"
    assert versions.libraries(["numpy>=3"], pinned, installed).state == "failed"
    assert "rich>=14 (here: None)" in versions.libraries(["rich>=14"], pinned, installed).said
    newer = {"numpy": "2.1.0", "torch": "2.9.0"}.get
    found = versions.libraries(asked, pinned, newer)
    assert (found.state, "numpy 2.1.0 (tested: 2.0.0)" in found.said) == ("warning", True)
    assert versions.libraries(asked, tmp_path / "none.txt", installed).state == "warning"


def test_python_and_flower_of_other_versions_are_failures() -> None:
    assert versions.python(">=3.11").state == "ok"
    assert versions.python(">=4").state == "failed"
    assert versions.flower().state == "ok"
    assert versions.flower({"flwr": "1.40.0"}.get).state == "failed"
    assert versions.flower({}.get).state == "failed"


def test_a_folder_is_written_to_and_left_as_it_was(tmp_path: Path) -> None:
    assert disk.writable(tmp_path).state == "ok"
    assert disk.writable(tmp_path / "not" / "yet").state == "ok"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(FederationError, match="is not a folder"):
        disk.writable(tmp_path / "file" / "state")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_of_another_user_is_a_failure(tmp_path: Path) -> None:
    """As the user that the worker runs as, to whom nobody gave it."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o5 != 0o5 and folder.is_relative_to("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o5)
    os.seteuid(65534)
    try:
        with pytest.raises(FederationError, match="can't be written: Permission denied") as caught:
            disk.writable(tmp_path)
    finally:
        os.seteuid(0)
    assert "mode 0700" in str(caught.value.remedy)


def test_too_little_room_is_a_failure_and_little_more_than_enough_a_warning(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert disk.room(tmp_path, free * 2).state == "failed"
    assert disk.room(tmp_path, int(free * 0.8)).state == "warning"
    assert disk.room(tmp_path / "not" / "yet", 1).state == "ok"


STUDY = """\
study: s
encoder: {{name: e, weights_sha256: {sha}}}
model: {{dropout: 0.0}}
training: {{rounds: 10, learning_rate: 1e-3}}
federation: {{institutions: [a, b], evaluate_every: 5}}
privacy: {privacy}
secure_aggregation: none
"""
PRIVATE = (
    "{mechanism: local, unit: patient, noise_multiplier: 1.0, delta: 1e-5, clip: 1.0, "
    "sampling_rate: 0.1, steps_per_round: 1, declared_units: 100, settings_from: synthetic, "
    "evaluation: exact}"
)


def test_room_covers_every_vector_that_a_study_keeps() -> None:
    """An institution keeps each round's; a coordinator two checkpoints with all they hold."""
    plain, private = (
        parse_study(STUDY.format(sha="ab" * 32, privacy=p), "s") for p in ("none", PRIVATE)
    )
    assert disk.institution_bytes(plain, 10**6) == disk.BASE_BYTES
    assert disk.institution_bytes(private, 10**6) > disk.BASE_BYTES + 10 * 4 * 10**6
    more = disk.coordinator_bytes(plain, 10**6, 5) - disk.BASE_BYTES
    assert more == 2 * 2 * 4 * 10**6 + 2 * 5
