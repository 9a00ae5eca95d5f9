"""Everything in an export that no entry bears out is found."""

import copy
import json

import pytest

from common.privacy.ledger import Cap
from common.privacy.ledger_examine import check_counterpart, verify_file
from common.privacy.ledger_export import TOLERANCE, check_export, export_of
from tests.ledgers import (
    COORDINATOR,
    DELTA,
    SIGNER,
    STRANGER,
    Chain,
    digest,
    long_chain,
    recover,
    refused,
    toy_epsilon,
)

CAPS = (Cap(unit="patient", delta=DELTA, epsilon_lifetime=10.0, epsilon_per_study=9.0),)


def account(events, delta, name):
    return toy_epsilon(events, delta) * {"pld": 1, "prv": 2, "rdp": 3}[name]


def content(chain=None, caps=CAPS):
    chain = chain or long_chain()
    return json.loads(json.dumps(export_of(chain.state, chain.file, caps, account)))


def checked(told):
    data = told if isinstance(told, bytes) else json.dumps(told).encode()
    return check_export(data, verify_file(data, SIGNER.public_key), lambda: account)


def paths(value, path=()):
    """The way to each value that has none below it."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in items:
        if isinstance(below, dict | list) and below:
            yield from paths(below, (*path, key))
        else:
            yield (*path, key)


def at(value, path):
    for key in path:
        value = value[key]
    return value


def test_an_export_follows_from_its_entries_with_caps_without_and_after_a_recovery():
    after = Chain().add(recover())
    for chain in (long_chain(), after):
        for caps in (CAPS, ()):
            assert checked(content(chain, caps)) == caps


def test_a_ledgers_file_is_no_export():
    assert checked(long_chain().file) is None
    assert checked(Chain().file) is None


@pytest.mark.parametrize("value", [17, 0.5, "forged", None, [], {}, [[]], True, float("nan")])
def test_a_forged_value_anywhere_is_found(value):
    whole = content()
    told = {name: below for name, below in whole.items() if name != "entries"}
    for path in paths(told):
        if "units" in path and path[-1] in ("cap", "cap_per_study"):  # signed by nobody, and told
            continue
        if type(at(whole, path)) is type(value) and at(whole, path) == value:
            continue
        forged = copy.deepcopy(whole)
        at(forged, path[:-1])[path[-1]] = value
        error = refused(checked, forged)
        assert error.place.startswith(str(path[0])), path


@pytest.mark.parametrize("name", ["cap", "cap_per_study"])
def test_a_forged_cap_is_told_as_unsigned_and_fits_the_other_figures(name):
    forged = content()
    forged["summary"]["units"][0][name] = 99.0
    refused(checked, forged)  # what is left does not follow
    others = content(caps=(Cap(unit="patient", delta=DELTA, epsilon_lifetime=99.0),))
    assert checked(others)[0].epsilon_lifetime == 99.0


def test_a_forged_number_as_large_as_a_machine_takes_is_no_crash():
    for value in (10**400, float("inf")):
        forged = content()
        forged["summary"]["units"][0].update(cap=value, left=value)
        assert refused(checked, forged).place == "summary.units[0]"


def test_a_missing_or_an_added_name_is_found():
    whole = content()
    for path in [p for p in paths({"summary": whole["summary"]}) if isinstance(p[-1], str)]:
        forged = copy.deepcopy(whole)
        del at(forged, path[:-1])[path[-1]]
        refused(checked, forged)
    assert "no part" in refused(checked, {**whole, "approved": True}).message
    whole["summary"]["approved"] = True
    assert refused(checked, whole).place == "summary.approved"


def test_a_name_that_stands_twice_is_refused():
    data = json.dumps(content())
    twice = data.replace('"head": "', '"head": "forged", "head": "', 1).encode()
    assert refused(checked, twice).place == "head"


def test_figures_may_differ_as_libraries_round_and_no_further():
    for factor, right in ((1 + TOLERANCE / 2, True), (1 + 3 * TOLERANCE, False)):
        told = content()
        told["summary"]["units"][0]["epsilon"]["prv"] *= factor
        if right:
            checked(told)
        else:
            assert refused(checked, told).place == "summary.units[0].epsilon.prv"


def test_a_delta_is_exact_however_small():
    """A millionth would be all of it."""
    forged = content()
    forged["summary"]["studies"][0]["delta"] *= 0.9999999
    assert refused(checked, forged).place == "summary.studies[0].delta"


def test_what_an_export_leaves_out_is_not_looked_for():
    whole = content()
    assert checked({"entries": whole["entries"]}) == ()
    assert checked({"entries": whole["entries"], "head": whole["head"]}) == ()


def test_a_countersigners_key_must_be_the_one_that_is_asked_for():
    state = long_chain().state
    check_counterpart(state, None)
    check_counterpart(state, COORDINATOR.public_key)
    assert COORDINATOR.public_key in refused(check_counterpart, state, STRANGER.public_key).message
    assert "not countersigned" in refused(check_counterpart, Chain().state, digest("a key")).message


def test_a_head_of_the_lost_ledger_is_not_in_the_one_that_follows_it():
    lost = long_chain().state.head
    new = Chain(ledger="9" * 32).add(recover(heads=(lost,), ledgers=(lost.ledger,)))
    assert verify_file(new.file, SIGNER.public_key, new.state.head) == new.state
    error = refused(verify_file, new.file, SIGNER.public_key, lost)
    assert "by a recovery" in error.message
