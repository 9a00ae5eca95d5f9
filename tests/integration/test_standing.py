"""An identity stands on the roster that was agreed on, in the study that it was agreed on for."""

import dataclasses

import pytest

from common.config.load import parse_site, parse_study
from common.errors import ConfigError, IdentityError
from common.identity.identity import Identity
from common.io.configs import load_roster
from common.io.identity_files import create, read_own
from common.io.standing import coordinator_standing, institution_standing
from tests.unit.test_secagg_config import text

NAMES = ("north", "site-2", "site-3")
WORDS = "correct horse battery"


@pytest.fixture
def base(tmp_path):
    """Identities of three institutions, a coordinator and a stranger, and a roster file."""
    for name in (*NAMES[1:], "coordinator"):
        create(tmp_path / name, name, None)
    create(tmp_path / "north", "north", WORDS)
    create(tmp_path / "stranger", "north", None)
    (tmp_path / "words").write_text(WORDS)
    (tmp_path / "words").chmod(0o600)
    write_roster(tmp_path, NAMES)
    return tmp_path


def write_roster(base, names, coordinator="coordinator", folders=None):
    keys = {name: read_own(base / (folders or {}).get(name, name)).public_key for name in names}
    lines = [f'  - {{name: {name}, public_key: "{key}"}}\n' for name, key in keys.items()]
    head = f'coordinator: "{read_own(base / coordinator).public_key}"\ninstitutions:\n'
    (base / "roster.yaml").write_text(head + "".join(lines))
    return load_roster(base / "roster.yaml")


def study(section="{}"):
    return parse_study(text(section, 3), "study.yaml")


def site(base, *, pin=None, **changes):
    keys = {"identity": "north", "roster": "roster.yaml", "passphrase_file": "words"} | changes
    lines = "".join(f"{key}: {value}\n" for key, value in keys.items() if value is not None)
    pin = pin or load_roster(base / "roster.yaml").sha256
    return parse_site(
        "institution: north\nstudy: study.yaml\ncoordinator: 127.0.0.1:9192\nstate: state\n"
        "data: {all: {format: brat, path: notes}, split: {test: 0.2, key: k}}\n"
        f'{lines}policy: {{roster_sha256: "{pin}"}}\n',
        "site.yaml",
    )


def test_an_institution_stands_on_the_roster_that_it_pins(base):
    found = institution_standing(site(base), base, study())
    assert found.identity.name == "north"
    assert found.roster.public_keys["north"] == found.identity.signer.public_key
    assert isinstance(found.identity, Identity)


def test_a_study_that_names_the_roster_has_it(base):
    pin = load_roster(base / "roster.yaml").sha256
    assert institution_standing(site(base), base, study(f'{{roster_sha256: "{pin}"}}'))
    other = study(f'{{roster_sha256: "{"ab" * 32}"}}')
    with pytest.raises(IdentityError, match="the study pins roster abab"):
        institution_standing(site(base), base, other)
    with pytest.raises(IdentityError, match="the study pins roster abab"):
        coordinator_standing(base / "coordinator", None, base / "roster.yaml", other)


def test_a_roster_that_changed_after_it_was_pinned_does_not_count(base):
    mine = site(base)
    write_roster(base, NAMES, coordinator="stranger")
    with pytest.raises(IdentityError, match="the site's policy pins roster"):
        institution_standing(mine, base, study())


@pytest.mark.parametrize("names", [NAMES[::-1], NAMES[:2]])
def test_a_roster_of_other_institutions_than_the_studys_does_not_count(base, names):
    write_roster(base, names)
    with pytest.raises(IdentityError, match="the study's institutions are north, site-2, site-3"):
        institution_standing(site(base), base, study())


def test_a_roster_with_anothers_key_under_this_name_does_not_count(base):
    write_roster(base, NAMES, folders={"north": "stranger"})
    with pytest.raises(IdentityError, match="another key for north"):
        institution_standing(site(base), base, study())


@pytest.mark.parametrize("key", ["identity", "roster"])
def test_a_site_without_identity_or_roster_is_told_so(base, key):
    with pytest.raises(IdentityError, match=f"names no `{key}`"):
        institution_standing(site(base, **{key: None}), base, study())


def test_a_site_whose_policy_pins_nothing_is_told_so(base):
    mine = site(base)
    loose = dataclasses.replace(mine, policy=dataclasses.replace(mine.policy, roster_sha256=None))
    with pytest.raises(IdentityError, match="pins no roster"):
        institution_standing(loose, base, study())


def test_the_passphrase_file_is_needed_where_the_key_has_a_passphrase(base):
    with pytest.raises(IdentityError, match="needs its passphrase"):
        institution_standing(site(base, passphrase_file=None), base, study())


def test_a_missing_roster_file_is_named(base):
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        institution_standing(site(base, roster="none.yaml"), base, study())


def test_the_coordinator_stands_with_the_rosters_own_key_alone(base):
    path = base / "roster.yaml"
    found = coordinator_standing(base / "coordinator", None, path, study())
    assert found.identity.signer.public_key == found.roster.coordinator
    for folder in ("stranger", "site-2"):
        with pytest.raises(IdentityError, match="the roster's coordinator is"):
            coordinator_standing(base / folder, None, path, study())


@pytest.mark.parametrize("names", [NAMES[::-1], NAMES[:2]])
def test_the_coordinator_needs_the_studys_institutions_too(base, names):
    write_roster(base, names)
    with pytest.raises(IdentityError, match="the study's institutions are"):
        coordinator_standing(base / "coordinator", None, base / "roster.yaml", study())
