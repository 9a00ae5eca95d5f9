"""Removes each check of the secure sum in a copy of the tree, and runs the test that should fail.

    scripts/bench secagg-mutations [--only WORD]

The table below names for each check its file, the exact text, what it becomes, and the test. A
check whose text is no longer there once, or whose test does not pass untouched, is an error.
"""

import argparse
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cryptography.hazmat.primitives.ciphers.aead
import cryptography.hazmat.primitives.kdf.hkdf  # noqa: F401
import numpy as np  # noqa: F401
import pydantic.dataclasses  # noqa: F401
import pytest
import yaml  # noqa: F401

_ROOT = Path(__file__).parents[2]
_TESTS = (
    "tests/integration/test_secagg_hostile.py",
    "tests/unit/test_secagg_params.py",
    "tests/unit/test_secagg_keys.py",
    "tests/unit/test_secagg_messages.py",
)
_COPIED = ("common", "tests", "scripts", "pyproject.toml")


@dataclass(frozen=True)
class Check:
    """One check: `text` in `common/secagg/file` becomes `without`; `test` then has to fail."""

    name: str
    file: str
    text: str
    without: str
    test: str


def _institution(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "institution.py", text, without, test)


def _checks(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "checks.py", text, without, test)


def _coordinator(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "coordinator.py", text, without, test)


CHECKS = (
    _institution(
        "coordinator's signature",
        "if not statements.verified(party.context.coordinator, label, text, signature):",
        "if False:",
        "test_unsigned_invitation_is_refused",
    ),
    _institution(
        "instruction is signed",
        "    _require_coordinator(party, statements.INSTRUCTION, text, told.signature)\n",
        "",
        "test_unsigned_instruction_is_refused",
    ),
    Check(
        "model hash is signed",
        "statements.py",
        "return bytes([VERSION]) + session.to_bytes() + model",
        "return bytes([VERSION]) + session.to_bytes()",
        "test_signature_of_an_instruction_does_not_serve_another_model",
    ),
    _institution(
        "study",
        "if session.study != context.study:",
        "if False:",
        "test_message_of_another_study_is_refused",
    ),
    _institution(
        "roster",
        "if session.roster != context.roster:",
        "if False:",
        "test_message_under_another_roster_is_refused",
    ),
    _institution(
        "session",
        "elif session != state.session:",
        "elif False:",
        "test_message_of_another_session_is_refused",
    ),
    _institution(
        "receiver",
        "if told.receiver != party.index:",
        "if False:",
        "test_instruction_for_another_institution_is_refused",
    ),
    _institution(
        "freshness",
        "if newest is not None and session.order <= newest:",
        "if False:",
        "test_session_that_is_not_newer_is_refused",
    ),
    _institution(
        "freshness, same attempt",
        "session.order <= newest",
        "session.order < newest",
        "test_stage_is_not_answered_again_after_a_restart",
    ),
    _institution(
        "identical reply",
        "if not isinstance(state, Idle | Failed) and state.answered.request == request:",
        "if False:",
        "test_same_request_gets_the_same_bytes_and_no_second_answer",
    ),
    _institution(
        "repeat is the same request",
        "state.answered.request == request:",
        "asked.kind.name and random == b'':",
        "test_stage_answered_is_not_answered_again_in_another_way",
    ),
    Check(
        "answered stages stay answered",
        "transitions.py",
        "    if led and _ORDER.index(stage) >= _ORDER.index(led[0]):",
        "    if led and _ORDER.index(stage) >= _ORDER.index(led[0]):\n        return led[0]\n"
        "    if False:",
        "test_stage_answered_is_not_answered_again_in_another_way",
    ),
    Check(
        "one vector",
        "transitions.py",
        "    (Stage.INSTRUCTED, Local.VECTOR): Stage.MASKED,",
        "    (Stage.INSTRUCTED, Local.VECTOR): Stage.MASKED,\n"
        "    (Stage.MASKED, Local.VECTOR): Stage.MASKED,",
        "test_vector_is_masked_once",
    ),
    Check(
        "no unmasking before the consistency stage",
        "transitions.py",
        "    (Stage.SIGNED, Kind.UNMASK): Stage.OPENED,",
        "    (Stage.SIGNED, Kind.UNMASK): Stage.OPENED,\n"
        "    (Stage.MASKED, Kind.UNMASK): Stage.OPENED,",
        "test_unmasking_without_the_consistency_stage_is_refused",
    ),
    Check(
        "failed stays failed",
        "transitions.py",
        "    if stage is Stage.FAILED:",
        "    if False:",
        "test_cohort_below_the_threshold_is_refused_before_anything_is_shared",
    ),
    _checks(
        "adverts are signed",
        "if not statements.verified(public, statements.ADVERT, text, advert.signature):",
        "if False:",
        "test_swapped_key_is_refused",
    ),
    _institution(
        "adverts are checked by institutions",
        "            checks.require_advert(party.context, advert)\n",
        "            pass\n",
        "test_unsigned_keys_are_refused",
    ),
    Check(
        "adverts name their session",
        "statements.py",
        "    return bytes([VERSION]) + advert.session.to_bytes() + sender + keys",
        "    return bytes([VERSION]) + sender + keys",
        "test_replayed_keys_of_another_session_are_refused",
    ),
    _checks(
        "one key once",
        "not seen.isdisjoint(mine):",
        "False:",
        "test_key_that_two_institutions_use_is_refused",
    ),
    _checks(
        "two keys of one owner differ",
        "if len(set(mine)) < len(mine) or",
        "if",
        "test_one_key_for_boxes_and_masks_is_refused",
    ),
    _institution(
        "own keys",
        "if state.advert not in told.adverts:",
        "if False:",
        "test_own_keys_replaced_or_left_out_are_refused",
    ),
    Check(
        "small order",
        "keys.py",
        "        probe.exchange(X25519PublicKey.from_public_bytes(public))",
        "        pass",
        "test_key_of_small_order_is_refused",
    ),
    _checks(
        "roster",
        "if index >= context.parameters.n:",
        "if False:",
        "test_padded_roster_is_refused",
    ),
    _institution(
        "threshold before sharing",
        '    checks.require_enough(party.context, senders, party.cohort, "sent keys")\n',
        "",
        "test_cohort_below_the_threshold_is_refused_before_anything_is_shared",
    ),
    _checks(
        "threshold",
        "if count < threshold:",
        "if False:",
        "test_threshold_that_the_coordinator_lowered_does_not_bind_an_institution",
    ),
    _checks(
        "threshold at the survivors",
        '    require_enough(context, survivors, party.cohort, "sent a vector")\n',
        "",
        "test_lowered_threshold_at_the_survivors_is_refused",
    ),
    _checks(
        "neighbours among the survivors",
        '    require_neighbours(context, party.index, len(survivors & holders), "sent a vector")\n',
        "",
        "test_sets_that_isolate_an_institution_on_a_ring_end_the_session",
    ),
    _checks(
        "the site's own cohort",
        "if count < cohort:",
        "if False:",
        "test_site_that_asks_for_more_than_the_study_aborts_below_its_own_cohort",
    ),
    Check(
        "box binds sender, receiver, digests",
        "keys.py",
        '    return BOX + _name(session, sender, receiver) + b"".join(digests)',
        "    return BOX",
        "test_tampered_box_is_refused",
    ),
    Check(
        "box keys differ by sender and receiver",
        "keys.py",
        "    return _derive(secret, label + _name(session, sender, receiver) + publics)",
        '    return _derive(b"0" * 32, label)',
        "test_box_keys_differ_by_direction_session_and_use",
    ),
    _institution(
        "boxes of neighbours only",
        "if box.peer not in state.neighbours:",
        "if box.peer == -1:",
        "test_box_of_no_neighbour_is_refused",
    ),
    Check(
        "point of a share",
        "keys.py",
        "if point != receiver + 1:",
        "if False:",
        "test_share_of_another_point_is_refused_and_its_dealer_named",
    ),
    Check(
        "field of a share",
        "shamir.py",
        'or int.from_bytes(share, "big") >= PRIME:',
        "or False:",
        "test_share_outside_the_field_is_refused_and_its_dealer_named",
    ),
    Check(
        "share committed to",
        "keys.py",
        "if _digests(session, box.peer, receiver, shares) != (box.key_digest, box.seed_digest):",
        "if False:",
        "test_share_that_is_not_the_one_committed_to_is_refused_and_its_dealer_named",
    ),
    _institution(
        "enough boxes",
        '    checks.require_neighbours(party.context, party.index, len(shares), "shared keys")\n',
        "",
        "test_too_few_boxes_end_the_session",
    ),
    _checks(
        "overlap",
        "if both := survivors & dropped:",
        "if both := frozenset():",
        "test_overlap_of_survivors_and_dropouts_is_refused",
    ),
    _checks(
        "strangers in the sets",
        "if strangers := (survivors | dropped) - frozenset(members):",
        "if strangers := frozenset():",
        "test_survivor_who_sent_no_keys_is_refused",
    ),
    _checks(
        "own place in the sets",
        "if party.index not in survivors:",
        "if False:",
        "test_sets_that_are_not_those_who_shared_keys_are_refused",
    ),
    _checks(
        "sets are those who shared keys",
        "if (survivors | dropped) & holders != frozenset(dealers):",
        "if False:",
        "test_survivor_who_shared_no_keys_is_refused",
    ),
    _checks(
        "signatures over one view",
        "if not statements.verified(public, statements.VIEW, view, signature):",
        "if False:",
        "test_two_survivor_sets_to_two_groups_are_refused",
    ),
    Check(
        "view has the model",
        "statements.py",
        "    head = bytes([VERSION]) + session.to_bytes() + adverts + model",
        "    head = bytes([VERSION]) + session.to_bytes() + adverts",
        "test_different_models_to_different_sites_are_refused",
    ),
    Check(
        "view has the sets",
        "statements.py",
        "    return head + _indices(survivors) + _indices(dropped)",
        "    return head",
        "test_two_survivor_sets_to_two_groups_are_refused",
    ),
    _institution(
        "sets that were signed",
        "if (told.survivors, told.dropped) != (state.survivors, state.dropped):",
        "if False:",
        "test_other_sets_than_were_signed_are_refused",
    ),
    _checks(
        "number of signatures",
        "if len(told.signatures) < threshold:",
        "if False:",
        "test_fewer_signatures_than_the_threshold_are_refused",
    ),
    _checks(
        "signers are survivors",
        "if sender not in told.survivors:",
        "if False:",
        "test_signer_who_is_no_survivor_is_refused",
    ),
    _institution(
        "no signatures where none are asked for",
        "    if told.signatures:",
        "    if False:",
        "test_semi_honest_study_takes_no_survivors_message_and_no_signatures",
    ),
    _coordinator(
        "sender is the transport's",
        "if claimed != sender:",
        "if False:",
        "test_reply_in_the_name_of_another_is_rejected",
    ),
    _coordinator(
        "second reply",
        "if known is not None:",
        "if False:",
        "test_same_reply_twice_is_ignored_and_another_rejected",
    ),
    _coordinator(
        "same reply once",
        "        if known == digest:\n            return\n        if known is not None:\n",
        "        if False:\n",
        "test_masked_vector_twice_is_in_the_sum_once",
    ),
    _coordinator(
        "late reply",
        "if COLLECTS.get(self._phase) is not reply.kind:",
        "if False:",
        "test_late_reply_is_rejected",
    ),
    _coordinator(
        "only who was asked",
        "if sender not in self._asked():",
        "if False:",
        "test_reply_of_one_who_was_left_behind_is_rejected",
    ),
    _coordinator(
        "reply of this session",
        "if session != self._session:",
        "if False:",
        "test_reply_of_another_session_is_rejected",
    ),
    _coordinator(
        "adverts at the coordinator",
        "                checks.require_advert(self._context, reply)\n",
        "",
        "test_forged_advert_and_reused_key_are_rejected",
    ),
    _coordinator(
        "reused keys at the coordinator",
        "checks.require_distinct(self._context, [*self._adverts.values(), reply])",
        "pass",
        "test_forged_advert_and_reused_key_are_rejected",
    ),
    _coordinator(
        "boxes for all neighbours",
        "if boxes.keys() != self._graph.neighbours(reply.sender):",
        "if False:",
        "test_boxes_for_others_than_the_neighbours_are_rejected",
    ),
    _coordinator(
        "length of a vector",
        "if reply.length != self._length or self._total is None:",
        "if self._total is None:",
        "test_vector_of_another_length_is_rejected",
    ),
    _coordinator(
        "signatures at the coordinator",
        "if not statements.verified(public, statements.VIEW, self._view(), reply.signature):",
        "if False:",
        "test_signature_over_another_view_is_rejected",
    ),
    Check(
        "share of a holder",
        "openings.py",
        "if keys.share_digest(label, self._view.session, owner, holder, share) != expected:",
        "if False:",
        "test_holder_of_a_share_that_does_not_fit_is_named",
    ),
    Check(
        "shares asked for",
        "openings.py",
        "if (frozenset(seeds), frozenset(of_keys)) != asked:",
        "if False:",
        "test_shares_of_others_than_were_asked_for_are_rejected",
    ),
    Check(
        "seed and commitment",
        "openings.py",
        "if seed is not None and self._is_committed(owner, seed):",
        "if seed is not None:",
        "test_seed_that_breaks_its_commitment_is_found_and_its_dealer_named",
    ),
    Check(
        "key and public key",
        "openings.py",
        "if key is None or keys.public_key(key) != self._view.adverts[owner].mask_key:",
        "if key is None:",
        "test_key_that_is_not_the_one_announced_is_found_and_its_dealer_named",
    ),
    _coordinator(
        "threshold at the coordinator",
        "            checks.require_enough(context, there, cohort, _DID[phase])\n",
        "            pass\n",
        "test_failed_coordinator_stays_failed",
    ),
    Check(
        "coordinator's failure stays",
        "transitions.py",
        "    if phase is Phase.FAILED:",
        "    if False:",
        "test_failed_coordinator_stays_failed",
    ),
    Check(
        "identity of a party",
        "session.py",
        "if self.signer.public_key != self.context.public_keys[self.index]:",
        "if False:",
        "test_identities_that_are_not_on_the_roster_are_refused",
    ),
    Check(
        "2 t > n + h",
        "params.py",
        "if not 2 * t > n + h:",
        "if False:",
        "test_two_groups_that_could_both_open_are_refused",
    ),
    Check(
        "t - h >= 2",
        "params.py",
        "if not t - h >= 2:",
        "if False:",
        "test_single_honest_institution_in_a_sum_is_refused",
    ),
    Check(
        "three institutions",
        "params.py",
        "if not 3 <= len(names) <= MAX_INSTITUTIONS:",
        "if False:",
        "test_study_of_one_or_two_is_refused_at_load",
    ),
    Check(
        "cohort - h >= 2",
        "params.py",
        "if not cohort - h >= 2:",
        "if False:",
        "test_cohort_that_holds_one_honest_institution_is_refused",
    ),
    Check(
        "no wrap",
        "params.py",
        "        require_no_wrap(self.bits, self.value_bits, len(self.institutions))\n",
        "",
        "test_bits_that_could_wrap_are_refused",
    ),
    Check(
        "ring as secure as stated",
        "params.py",
        "if not failure <= -FAILURE_BITS - GRINDING_BITS:",
        "if False:",
        "test_ring_that_colluders_could_surround_is_refused",
    ),
    Check(
        "end of a message",
        "codec.py",
        "        if self._left:\n",
        "        if False:\n",
        "test_byte_too_many_is_refused",
    ),
    Check(
        "order of indices",
        "codec.py",
        "if index <= last:",
        "if False:",
        "test_list_out_of_order_or_with_one_index_twice_is_refused",
    ),
    Check(
        "version",
        "codec.py",
        "if (version := reader.number(1)) != VERSION:",
        "if (version := reader.number(1)) == 256:",
        "test_other_version_kind_or_magic_is_refused",
    ),
)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench secagg-mutations")
    parser.add_argument("--only", default="", help="checks whose name or test holds this word")
    only = parser.parse_args(argv).only
    chosen = [check for check in CHECKS if only in check.name or only in check.test]
    print(f"{len(chosen)} checks\n\n| check | file | test | outcome |\n|---|---|---|---|")
    survived = 0
    with tempfile.TemporaryDirectory() as scratch:
        tree = _copy(Path(scratch))
        _require_sound(tree, chosen)
        for check in chosen:
            caught = _caught(tree, check)
            survived += not caught
            outcome = "caught" if caught else "SURVIVED"
            print(f"| {check.name} | {check.file} | {check.test} | {outcome} |", flush=True)
    print(f"\n{len(chosen) - survived} caught, {survived} survived")
    return 1 if survived else 0


def _copy(scratch: Path) -> Path:
    tree = scratch / "tree"
    tree.mkdir()
    for name in _COPIED:
        source = _ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree / name)
    return tree


def _require_sound(tree: Path, chosen: list[Check]) -> None:
    for check in chosen:
        found = (tree / "common/secagg" / check.file).read_text().count(check.text)
        if found != 1:
            raise SystemExit(f"{check.name}: its text stands {found} times in {check.file}")
    for file in _TESTS:
        names = sorted({check.test for check in chosen if _file_of(tree, check.test) == file})
        if names and not _passes(tree, file, names):
            raise SystemExit(f"{file} fails before anything is removed")


def _file_of(tree: Path, test: str) -> str:
    for file in _TESTS:
        if f"def {test}(" in (tree / file).read_text():
            return file
    raise SystemExit(f"{test} stands in none of {', '.join(_TESTS)}")


def _caught(tree: Path, check: Check) -> bool:
    path = tree / "common/secagg" / check.file
    text = path.read_text()
    path.write_text(text.replace(check.text, check.without))
    try:
        return not _passes(tree, _file_of(tree, check.test), [check.test])
    finally:
        path.write_text(text)


def _passes(tree: Path, file: str, tests: list[str]) -> bool:
    """Whether the tests pass, in a forked child, for which this process has imported the rest.

    Anything but passing and failing ends the run.
    """
    output = tree.parent / "output"
    child = os.fork()
    if child == 0:
        os._exit(_run_tests(tree, output, [f"{file}::{test}" for test in tests]))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, 1):
        raise SystemExit(f"{tests}: exit status {code}\n{output.read_text()[-2000:]}")
    return code == 0


def _run_tests(tree: Path, output: Path, tests: list[str]) -> int:
    """pytest's exit status; the tree's own packages are imported here and nowhere else."""
    with output.open("w") as sink:
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
    os.chdir(tree)
    for name in [name for name in sys.modules if name.split(".")[0] in _COPIED]:
        del sys.modules[name]
    sys.path[:] = [str(tree), *(p for p in sys.path if p and Path(p).resolve() != _ROOT)]
    sys.dont_write_bytecode = True
    return int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
