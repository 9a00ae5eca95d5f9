"""Unit and container files: what they say holds together, and fedner accepts every command in them.

Nothing of it starts here: there is neither a running systemd nor a container engine. What can be
looked at without is: systemd's own tools where they are installed, and our command line.
"""

import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import typer
import yaml

from common.errors import FednerError, FlowerEndedError, StorageError, UsageError
from common.io.configs import load_relay
from common.io.home import coordinator_state, fedner_home
from scripts.cli import app
from scripts.verbs.server import _whereabouts
from tests.unit.test_coordinator import study_of

CONFIGS = Path(__file__).parents[2] / "configs"
UNITS = sorted((CONFIGS / "systemd").glob("*/*.service"))
COMPOSE = sorted((CONFIGS / "containers").glob("*.compose.yaml"))
WORKER, RELAY, SERVER = (
    next(unit for unit in UNITS if unit.name == f"fedner-{role}@.service")
    for role in ("worker", "relay", "server")
)
FEDNER = "/opt/fedner/bin/fedner"
SAME_EVERYWHERE = {
    "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "AmbientCapabilities": "",
    "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "PrivateDevices": "yes",
    "ProtectProc": "invisible", "ProtectKernelTunables": "yes", "ProtectKernelModules": "yes",
    "ProtectKernelLogs": "yes", "ProtectControlGroups": "yes", "ProtectClock": "yes",
    "ProtectHostname": "yes", "RestrictNamespaces": "yes", "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes", "LockPersonality": "yes", "SystemCallArchitectures": "native",
    "SystemCallFilter": "@system-service", "UMask": "0077", "LimitCORE": "0", "Type": "exec",
    "KillMode": "mixed", "StateDirectoryMode": "0700", "Restart": "on-failure",
}  # fmt: skip


def keys(unit: Path) -> dict[str, list[str]]:
    """All settings of a unit, in whatever section, by name."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text("utf-8").splitlines():
        if line and line[0] not in "#;[":
            name, _, value = line.partition("=")
            found.setdefault(name.strip(), []).append(value.strip())
    return found


def one(unit: Path, name: str) -> str:
    (value,) = keys(unit)[name]
    return value


def accept(arguments: list[str]) -> None:
    """Parse a command line as `fedner` does, and run nothing."""
    command = typer.main.get_command(app)
    with command.make_context("fedner", list(arguments)) as context:
        rest = [*context._protected_args, *context.args]
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None, name
        found.make_context(name, rest, parent=context).close()


def commands_of(text: str) -> list[list[str]]:
    """Every call of fedner in an ExecStart line, with the instance's name put in."""
    words = shlex.split(text.replace("%i", "north"))
    if words[0] == FEDNER:
        return [words[1:]]
    assert words[:2] == ["/bin/sh", "-c"]
    assert subprocess.run(["/bin/sh", "-n", "-c", words[2]], check=False).returncode == 0
    calls = re.findall(rf"exec {FEDNER} ([^;]+);", words[2])
    assert words[2].count(FEDNER) == len(calls) > 0
    return [call.split() for call in calls]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_fedner_accepts_every_command_of_a_unit(unit):
    for arguments in commands_of(one(unit, "ExecStart")):
        accept(arguments)


def test_a_command_that_fedner_does_not_know_is_found_out():
    for wrong in (["client", "x", "--side", "both"], ["serve"], ["client", "--nothing", "x"]):
        with pytest.raises(Exception, match=r"both|serve|nothing"):
            accept(wrong)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_every_unit_is_hardened_and_a_user_of_its_own(unit):
    found = keys(unit)
    assert {name: found.get(name) for name in SAME_EVERYWHERE} == {
        name: [value] for name, value in SAME_EVERYWHERE.items()
    }
    users = [one(each, "User") for each in UNITS]
    assert len(set(users)) == len(users) == 3
    assert "root" not in users
    assert one(unit, "User") == one(unit, "Group")


def test_the_worker_has_no_network_and_the_relay_nothing_of_the_workers():
    assert one(WORKER, "PrivateNetwork") == "yes"
    assert one(WORKER, "RestrictAddressFamilies") == "AF_UNIX"
    assert one(WORKER, "IPAddressDeny") == "any"
    assert one(WORKER, "ReadWritePaths") == "/run/fedner"
    hidden = {path.lstrip("-") for path in one(RELAY, "InaccessiblePaths").split()}
    said = " ".join(value for values in keys(WORKER).values() for value in values)
    places = re.findall(r"/(?:etc|var)/[a-z/-]+", said)
    assert {"/etc/fedner/worker", "/var/lib/fedner-worker", "/etc/fedner/credentials"} == hidden
    own = {place.rstrip("/") for place in places} - {"/etc/fedner/relay", "/var/lib/fedner-relay"}
    assert own == hidden
    assert "LoadCredential" not in RELAY.read_text()
    assert one(WORKER, "SupplementaryGroups") == one(RELAY, "SupplementaryGroups") == "fedner-door"
    assert "SupplementaryGroups" not in keys(SERVER)


def test_what_fedner_refuses_is_not_started_again_but_a_worker_that_is_late_is():
    errors = [e for e in FednerError.__subclasses__() if e.__module__ == FednerError.__module__]
    codes = {error.exit_code for error in errors} | {11}
    never = {unit: set(map(int, one(unit, "RestartPreventExitStatus").split())) for unit in UNITS}
    assert never[SERVER] == codes - {7}
    assert FlowerEndedError.exit_code not in never[SERVER] | never[WORKER] | never[RELAY]
    assert FlowerEndedError.exit_code not in codes
    assert StorageError.exit_code not in codes | set().union(*never.values())  # it passes
    assert (one(SERVER, "StartLimitIntervalSec"), one(SERVER, "StartLimitBurst")) == ("3600", "5")
    assert never[WORKER] == codes - {7, 8}  # 8: it was killed while it started
    assert never[RELAY] == {2, 3, 6, 10}
    assert {one(unit, "SuccessExitStatus") for unit in UNITS} == {"130"}  # an ordinary stop


def test_users_groups_and_folders_are_those_of_sysusers_and_tmpfiles():
    for units in ([WORKER, RELAY], [SERVER]):
        folder = units[0].parent
        lines = [line.split() for line in (folder / "sysusers.conf").read_text().splitlines()
                 if line and not line.startswith("#")]  # fmt: skip
        users = {words[1] for words in lines if words[0] == "u"}
        groups = {words[1] for words in lines if words[0] == "g"} | users
        members = {(words[1], words[2]) for words in lines if words[0] == "m"}
        assert users == {one(unit, "User") for unit in units}
        for unit in units:
            for group in keys(unit).get("SupplementaryGroups", []):
                assert group in groups
                assert (one(unit, "User"), group) in members
        assert all(user in users and group in groups for user, group in members)
        made = tmpfiles(folder)
        assert {owner for _, owner, group in made.values() if owner == group} <= {*groups, "root"}
        for unit in units:
            state = f"/var/lib/{one(unit, 'StateDirectory').split()[0].partition('/')[0]}"
            assert made[state] == ("0700", one(unit, "User"), one(unit, "User"))
            assert one(unit, "WorkingDirectory").startswith(state)
    made = tmpfiles(WORKER.parent)
    assert made["/run/fedner"] == ("0711", "fedner-worker", "fedner-worker")
    assert made["/etc/fedner/relay"][0] == made["/etc/fedner/worker"][0] == "0700"


def tmpfiles(folder):
    """Mode, user and group of each folder that is made."""
    lines = (folder / "tmpfiles.conf").read_text().splitlines()
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    assert all(row[0] == "d" for row in rows)
    return {row[1]: (row[2], row[3], row[4]) for row in rows}


def tool(name):
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed")


@tool("systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_itself_finds_nothing_wrong_with_a_unit(unit, tmp_path):
    here = Path(sys.executable).parent / "fedner"
    copies = [tmp_path / each.name for each in UNITS]
    for each, copy in zip(UNITS, copies, strict=True):
        copy.write_text(each.read_text().replace(FEDNER, str(here)))
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    about_ours = [line for line in said.stderr.splitlines() if "fedner" in line]
    assert (said.returncode, about_ours) == (0, [])


@tool("systemd-sysusers")
@tool("systemd-tmpfiles")
@pytest.mark.skipif("os.geteuid() != 0", reason="systemd-sysusers needs root")
def test_systemd_makes_users_and_folders_as_they_are_meant(tmp_path):
    (tmp_path / "etc").mkdir()
    for folder in (WORKER.parent, SERVER.parent):
        root = f"--root={tmp_path}"
        subprocess.run(["systemd-sysusers", root, folder / "sysusers.conf"], check=True)
        subprocess.run(["systemd-tmpfiles", root, "--create", folder / "tmpfiles.conf"], check=True)
    groups = (tmp_path / "etc/group").read_text()
    door = next(line for line in groups.splitlines() if line.startswith("fedner-door:"))
    assert set(door.split(":")[3].split(",")) == {"fedner-worker", "fedner-relay"}
    run = (tmp_path / "run/fedner").stat()
    assert (oct(run.st_mode & 0o777), run.st_uid > 0) == ("0o711", True)
    assert oct((tmp_path / "var/lib/fedner-worker").stat().st_mode & 0o777) == "0o700"


def test_the_servers_unit_begins_a_run_once_and_then_goes_on_with_it(tmp_path):
    """By the shell of its ExecStart; in fedner's place one that says what it was asked."""
    says = tmp_path / "fedner"
    says.write_text('#!/bin/sh\necho "$@"\n')
    says.chmod(0o755)
    line = shlex.split(one(SERVER, "ExecStart").replace("%i", "r1").replace(FEDNER, str(says)))

    def started():
        return subprocess.run(
            line, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.split()

    assert started()[:2] == ["server", "federation/study.yaml"]
    assert started()[-2:] == ["--out", "runs/r1"]
    (tmp_path / "runs" / "r1").mkdir(parents=True)
    (tmp_path / "runs" / "r1" / "origin.json").write_text("{}")
    assert started() == ["server", "--resume", "runs/r1"]


def test_what_takes_no_passphrase_is_said_where_one_is_given():
    """A study without secure aggregation: its server would end with 2, and not be started again."""
    study = study_of()
    assert study.secure is None
    with pytest.raises(UsageError, match="--passphrase-file") as caught:
        _whereabouts(study, "127.0.0.1:9192", None, Path("passphrase"), None)
    page = CONFIGS.parent / "docs" / "deployment.md"
    assert "docs/deployment.md" in str(caught.value.remedy)
    coordinators = next(path for path in COMPOSE if path.name.startswith("coordinator"))
    for text in (SERVER.read_text(), coordinators.read_text(), page.read_text("utf-8")):
        assert "--passphrase-file" in text
        assert "secure_aggregation: none" in text
    own = next(line for line in stages()["server"] if line.startswith("CMD "))
    assert "--passphrase-file" not in own  # of the image, once the compose file's is taken out


def lines_with_systemd_run():
    page = (CONFIGS.parent / "docs" / "deployment.md").read_text("utf-8")
    return [line for line in page.splitlines() if line.startswith("systemd-run ")]


@pytest.mark.parametrize("line", lines_with_systemd_run())
def test_what_is_looked_at_with_systemd_run_has_what_its_unit_has(line):
    words = shlex.split(line)
    at = words.index(FEDNER)
    options, arguments = words[1:at], words[at + 1 :]
    accept(arguments)
    given = dict(b.split("=", 1) for a, b in pairwise(options) if a == "-p")
    environment = {b for a, b in pairwise(options) if a == "-E"}
    assert {"--pipe", "--wait", "--collect"} < set(options)
    unit = {one(each, "User"): each for each in UNITS}[given["User"]]
    for name in ("User", "Group", "SupplementaryGroups", "LoadCredentialEncrypted"):
        said = [value.replace("%i", "NAME") for value in keys(unit).get(name, [])]
        assert [given[n] for n in (name,) if n in given] == said
    assert environment == set(" ".join(keys(unit).get("Environment", [])).split())
    state = one(unit, "StateDirectory").split()[0].partition("/")[0]
    assert given["WorkingDirectory"] == f"/var/lib/{state}"
    whole = " ".join(arguments)
    if unit is SERVER:
        began = next(c for c in commands_of(one(SERVER, "ExecStart")) if "--out" in c)
        for name in ("--federation", "--passphrase-file"):
            assert f"{name} {began[began.index(name) + 1]}" in whole
    else:
        (started,) = commands_of(one(unit, "ExecStart"))
        assert started[1].replace("north", "NAME") in arguments


def test_both_looks_and_the_rehearsal_have_their_line():
    said = " ".join(lines_with_systemd_run())
    assert len(lines_with_systemd_run()) == 4
    assert said.count("fedner doctor") == 3
    assert said.count("--rehearse") == 1


def is_below(path, places):
    return any(Path(path).is_relative_to(place) for place in places)


def test_all_that_the_server_writes_lies_in_the_units_state(monkeypatch):
    """ProtectSystem=strict leaves nothing else; PrivateTmp does not last."""
    given = dict(pair.split("=", 1) for pair in one(SERVER, "Environment").split())
    state = [f"/var/lib/{name}" for name in one(SERVER, "StateDirectory").split()]
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert is_below(coordinator_state(), state)
    assert not is_below(fedner_home(), state)  # root's, and read-only
    for arguments in commands_of(one(SERVER, "ExecStart")):
        out = arguments[arguments.index("--out" if "--out" in arguments else "--resume") + 1]
        assert is_below(Path(one(SERVER, "WorkingDirectory")) / out, state)


def test_all_that_the_server_writes_lies_on_a_volume_of_its_container(monkeypatch):
    (service,) = (s for name, s in services().items() if name.startswith("coordinator"))
    mounts = [volume.split(":") for volume in service["volumes"]]
    kept = [at for source, at, *mode in mounts if mode != ["ro"] and source[0] != "."]
    built = [*stages()["base"], *stages()["server"]]
    given = [pair for line in built if line.startswith("ENV ") for pair in line.split()[1:]]
    for name, value in (pair.split("=", 1) for pair in given):
        monkeypatch.setenv(name, value)
    (folder,) = [line.split()[1] for line in stages()["server"] if line.startswith("WORKDIR ")]
    assert is_below(coordinator_state(), kept)
    assert not is_below(coordinator_state(), [t.split(":")[0] for t in service["tmpfs"]])
    command = service["command"]
    assert is_below(Path(folder) / command[command.index("--out") + 1], kept)
    (users,) = [line for line in built if "useradd" in line]
    for place in kept:  # a new volume takes owner and mode from the image's folder
        assert f"-m 0700 -o fedner-server -g fedner-server {place}" in users


def services():
    return {
        f"{path.stem.partition('.')[0]}: {name}": service
        for path in COMPOSE
        for name, service in yaml.safe_load(path.read_text())["services"].items()
    }


@pytest.mark.parametrize("name", services())
def test_every_container_is_read_only_without_capabilities_as_a_user_of_its_own(name):
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service
    users = [each["user"] for each in services().values()]
    assert len(set(users)) == len(users) == 3
    target = service["build"]["target"]
    built = stages()[target]
    assert f"USER {service['user']}" in built
    kind, *check = service["healthcheck"]["test"]
    assert (kind, check[0]) == ("CMD", "fedner")
    accept(check[1:])


def test_worker_and_relay_share_the_sockets_folder_alone_and_the_worker_no_network():
    worker, relay = (services()[f"institution: {role}"] for role in ("worker", "relay"))
    assert worker["network_mode"] == "none"
    assert "ports" not in worker
    assert "ports" not in relay
    shared = {v.split(":")[0] for v in worker["volumes"]} & {
        v.split(":")[0] for v in relay["volumes"]
    }
    assert shared == {"door"}
    assert "door:/run/fedner:ro" in relay["volumes"]
    assert worker["group_add"] == relay["group_add"] == ["41009"]


def stages():
    """The lines of each stage of the Containerfile that has a name, joined where they go on."""
    text = (CONFIGS / "containers" / "Containerfile").read_text().replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("FROM "):
            found[line.split(" AS ")[1]] = []
        elif line and not line.startswith("#"):
            found[list(found)[-1]].append(" ".join(line.split()))
    return found


def test_the_containerfile_copies_what_is_there_makes_the_users_and_runs_what_fedner_knows():
    found = stages()
    base = found["base"]
    copied = [name for line in base if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert all((CONFIGS.parent / name).exists() for name in copied)
    packages = {"client", "common", "scripts", "server"}
    assert packages <= set(copied)
    (users,) = [line for line in base if "useradd" in line]
    assert "groupadd --gid 41009 fedner-door" in users
    for role, number in (("worker", 41001), ("relay", 41002), ("server", 41003)):
        made = re.search(rf"useradd --uid {number} ([^&]*) fedner-{role}", users)
        assert made is not None
        assert ("--groups fedner-door" in made[1]) == (role != "server")
        command = next(line for line in found[role] if line.startswith("CMD "))
        accept(yaml.safe_load(command.removeprefix("CMD ")))
    assert "/run/fedner" in users
    assert "-m 0711 -o fedner-worker -g fedner-worker /run/fedner" in users


def test_the_sample_of_a_relays_file_is_one():
    found = load_relay(CONFIGS / "relay-example.yaml")
    assert (found.institution, found.node) == ("general-hospital", "node")
