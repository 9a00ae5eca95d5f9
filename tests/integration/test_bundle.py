"""What travels: the bundle that `flwr run` makes of the checkout holds code of ours, no data."""

import io
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from flwr.cli.build import build_fab_from_disk

pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")

ROOT = Path(__file__).parents[2]
SECRET = b"Quirinus Zaragoza, born 1 April 1931"
OWN = {"pyproject.toml", ".info/CONTENT"}
PLANTED = (
    ".env",
    "client/notes.json",
    "client/session_keys.pem",
    "client/site.yaml",
    "common/cache.pkl",
    "common/data.csv",
    "common/data/train.conll",
    "common/data/train.jsonl",
    "common/io/encoders.safetensors",
    "configs/site.yaml",
    "data/train.jsonl",
    "federation/cardiac-centre/state/worker.log",
    "federation/cardiac-centre/train.jsonl",
    "keys/site.pem",
    "ledger.jsonl",
    "notes.txt",
    "runs/tiny-1/checkpoint.npz",
    "runs/tiny-1/metrics.jsonl",
    "runs/tiny-1/model/fedner.json",
    "scripts/local.py",
    "server/ledger.jsonl",
    "server/notes.md",
    "server/private.key",
    "server/site.toml",
    "site.local.yaml",
    "state/flower/state.db",
    "tests/unit/test_with_a_note.py",
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what git holds of the packages, with secrets planted wherever one might lie."""
    root = tmp_path_factory.mktemp("checkout") / "fedner"
    unwanted = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("client", "common", "configs", "scripts", "server", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=unwanted)
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copyfile(ROOT / name, root / name)
    for name in PLANTED:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert not path.exists() or name == "configs/site.yaml"
        path.write_bytes(b"'''" + SECRET + b"'''\n" if name.endswith(".py") else SECRET)
    return root


@pytest.fixture(scope="module")
def bundle(checkout):
    """Content by name."""
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(checkout))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def unpacked(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    for name, content in bundle.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def _may_travel(name):
    path = PurePosixPath(name)
    if path.parts[0] == "client":
        return name in {"client/__init__.py", "client/app.py", "client/relay.py"}
    return path.parts[0] in {"server", "common"} and path.suffix == ".py"


def test_nothing_travels_but_code_of_coordinator_relay_and_common(bundle):
    assert [name for name in bundle if not _may_travel(name) and name not in OWN] == []


def test_no_planted_secret_travels(bundle):
    assert not set(PLANTED) & bundle.keys()
    assert [name for name, content in bundle.items() if SECRET in content] == []


def test_no_secret_travels_even_without_a_gitignore(checkout, tmp_path):
    bare = shutil.copytree(checkout, tmp_path / "fedner")
    (bare / ".gitignore").unlink()
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(bare))) as archive:
        names = archive.namelist()
        assert [n for n in names if SECRET in archive.read(n)] == []
    assert [name for name in names if not _may_travel(name) and name not in OWN] == []


def test_the_bundle_names_no_file_or_person_of_this_machine(bundle):
    for word in (str(ROOT).encode(), str(Path.home()).encode() + b"/"):
        assert [name for name, content in bundle.items() if word in content] == []


def test_the_bundle_is_the_same_in_two_builds(checkout):
    assert build_fab_from_disk(checkout) == build_fab_from_disk(checkout)


def test_the_code_that_travels_is_the_installed_code(bundle):
    code = {name for name in bundle if name.endswith(".py")}
    assert [name for name in code if bundle[name] != (ROOT / name).read_bytes()] == []
    every = {p.relative_to(ROOT).as_posix() for p in ROOT.glob("server/**/*.py")}
    every |= {p.relative_to(ROOT).as_posix() for p in ROOT.glob("common/**/*.py")}
    assert every <= code


_IMPORT = """
import sys
folder, module = sys.argv[1:]
own = ("client", "common", "server", "scripts")
# no site-packages entry may lead to the checkout: neither its folder nor an editable finder
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in str(f).lower()]
sys.path[:] = [folder] + [p for p in sys.path if p and "site-packages" in p or "lib" in p]
__import__(module)
bad = [n for n, m in sys.modules.items() if n.split(".")[0] in own
       and not (getattr(m, "__file__", None) or "").startswith(folder)]
assert not bad, bad
loaded = sorted(n for n in sys.modules if n.split(".")[0] in ("torch", "transformers", "peft"))
assert not loaded, loaded[:3]
print(*sorted(n for n in sys.modules if n.split(".")[0] in own))
"""


@pytest.mark.parametrize("module", ["server.app", "client.app"])
def test_what_travels_imports_with_nothing_else_of_ours_and_without_torch(unpacked, module):
    done = subprocess.run(
        [sys.executable, "-P", "-c", _IMPORT, str(unpacked), module],
        cwd=unpacked.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert module in done.stdout.split()
    assert "scripts" not in done.stdout


def test_the_bundles_configuration_starts_coordinator_and_relay_only(bundle):
    config = tomllib.loads(bundle["pyproject.toml"].decode())["tool"]["flwr"]["app"]
    assert config["components"] == {"serverapp": "server.app:app", "clientapp": "client.app:app"}
    assert config["config"] == {"run-dir": ""}
