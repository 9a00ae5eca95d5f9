"""Removes each check of the secure sum in a copy of the tree, and runs the test that should fail.

Of the protocol (`common/secagg`), of the drivers at both ends, of what a site remembers, of the
room that the coordinator keeps for its audit log, and of the gate.

    scripts/bench secagg-mutations [--only WORD]

The tables below and in `_secagg_refusals` name for each check its file, the exact text, what it
becomes, and the test. A check whose text is no longer there once, or whose test does not pass
untouched, is an error.
"""

import sys

from scripts.benchmarks._mutations import Check, remove_each
from scripts.benchmarks._secagg_refusals import REFUSALS

_TESTS = (
    "tests/integration/test_secagg_hostile.py",
    "tests/integration/test_secagg_signed.py",
    "tests/integration/test_secagg_complaints.py",
    "tests/integration/test_secagg_views.py",
    "tests/integration/test_sums_drivers.py",
    "tests/integration/test_sums_checks.py",
    "tests/integration/test_sums_again.py",
    "tests/integration/test_sums_given.py",
    "tests/integration/test_sums_patience.py",
    "tests/unit/test_attempts.py",
    "tests/unit/test_freshness.py",
    "tests/unit/test_run_folder.py",
    "tests/unit/test_secagg_params.py",
    "tests/unit/test_secagg_keys.py",
    "tests/unit/test_secagg_messages.py",
    "tests/integration/test_sums_disk.py",
    "tests/unit/test_audit_reserve.py",
    "tests/unit/test_secagg_vectors.py",
    "tests/unit/test_secagg_pipeline.py",
    "tests/unit/test_secagg_adding.py",
    "tests/unit/test_gate_limits.py",
    "tests/integration/test_gate.py",
    "tests/integration/test_gate_bodies.py",
    "tests/integration/test_gate_handlers.py",
    "tests/unit/test_exchange.py",
    "tests/unit/test_absences.py",
    "tests/unit/test_coordinator.py",
    "tests/unit/test_receipts.py",
    "tests/integration/test_rejoin.py",
    "tests/integration/test_reply_parts.py",
    "tests/integration/test_session.py",
    "tests/integration/test_sums_session.py",
    "tests/integration/test_secure_simulation.py",
    "tests/unit/test_secagg_packing.py",
)


def _institution(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "institution.py", text, without, test)


def _client(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "client/sums.py", text, without, test)


def _remembered(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "common/io/freshness.py", text, without, test)


def _server(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "server/sums.py", text, without, test)


def _trips(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "server/trips.py", text, without, test)


def _again(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "server/again.py", text, without, test)


def _tried(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "server/attempts.py", text, without, test)


def _outcome(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "server/outcome.py", text, without, test)


def _vectors(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "vectors.py", text, without, test)


def _pipeline(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "pipeline.py", text, without, test)


def _audit(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "server/audit.py", text, without, test)


def _gate(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "server/gate.py", text, without, test)


def _limits(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "server/limits.py", text, without, test)


def _flower(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "common/io/flower_internals.py", text, without, test)


def _covered(name: str, part: str, test: str) -> Check:
    """Signatures of requests that are over a part of the message only."""
    return Check(
        name,
        "common/identity/signing.py",
        '    return label + b"\\n" + message\n',
        f'    part = message{part} if label.endswith(b"request v1") else message\n'
        '    return label + b"\\n" + part\n',
        test,
    )


def _checks(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "checks.py", text, without, test)


def _coordinator(name: str, text: str, without: str, test: str) -> Check:
    return Check(name, "coordinator.py", text, without, test)


CHECKS = (
    Check(
        "requests are signed",
        "requests.py",
        "if not statements.is_signed(state.party.context.coordinator, message):",
        "if False:",
        "test_unsigned_request_is_refused",
    ),
    Check(
        "requests are signed by the coordinator",
        "requests.py",
        "if not statements.is_signed(state.party.context.coordinator, message):",
        "known = state.party.context\n"
        "    keys = (known.coordinator, *known.public_keys)\n"
        "    if not any(statements.is_signed(key, message) for key in keys):",
        "test_request_signed_by_another_key_is_refused",
    ),
    _covered(
        "signatures cover the kind",
        "[6:79]",
        "test_signature_of_another_kind_of_request_is_refused",
    ),
    _covered(
        "signatures cover the session",
        "[:6]",
        "test_signature_of_another_session_is_refused",
    ),
    _covered(
        "signatures cover the body",
        "[:79]",
        "test_signature_of_another_body_is_refused",
    ),
    _covered(
        "signatures cover receiver and boxes",
        "[:111]",
        "test_signature_of_another_institutions_instruction_is_refused",
    ),
    Check(
        "signatures have their label",
        "common/identity/signing.py",
        '    return label + b"\\n" + message\n',
        "    return message\n",
        "test_request_for_all_is_one_message_and_its_label_is_its_own",
    ),
    _institution(
        "signature before stage and content",
        "    require_request(state, asked.session, message)\n"
        "    request = hashlib.sha256(message).digest()\n",
        "    request = hashlib.sha256(message).digest()\n"
        "    after(state.stage, asked.kind, state.party.context.parameters.adversary)\n"
        "    require_request(state, asked.session, message)\n",
        "test_signature_is_checked_before_stage_and_content",
    ),
    Check(
        "complaints are signed",
        "replies.py",
        "bound = isinstance(reply, Testimony)",
        "bound = isinstance(reply, Testimony) and not isinstance(reply, Complaint)",
        "test_complaints_that_who_carries_the_messages_made_up_are_refused",
    ),
    Check(
        "boxes are signed",
        "replies.py",
        "bound = isinstance(reply, Testimony)",
        "bound = isinstance(reply, Testimony) and not isinstance(reply, Boxes)",
        "test_boxes_that_who_carries_the_messages_changed_are_refused",
    ),
    Check(
        "openings are signed",
        "replies.py",
        "bound = isinstance(reply, Testimony)",
        "bound = isinstance(reply, Boxes | Complaint)",
        "test_shares_that_who_carries_the_messages_changed_name_no_holder",
    ),
    Check(
        "complaints of a box's dealer only",
        "replies.py",
        "if told.sender not in self.boxes.get(told.accused, {}):",
        "if False:",
        "test_complaint_of_one_whose_box_was_not_sent_is_refused",
    ),
    _coordinator(
        "complaints where boxes are due",
        "if isinstance(reply, Complaint) and self._phase is Phase.MASKED:",
        "if isinstance(reply, Complaint):",
        "test_complaint_at_another_stage_is_out_of_order",
    ),
    Check(
        "complaints of boxes only",
        "dealing.py",
        "if not isinstance(state, Shared) or not isinstance(error, BoxError | ShareError):",
        'if not isinstance(state, Shared) or error.peer == "coordinator":',
        "test_no_other_refusal_makes_a_complaint",
    ),
    Check(
        "study",
        "requests.py",
        "if session.study != context.study:",
        "if False:",
        "test_message_of_another_study_is_refused",
    ),
    Check(
        "roster",
        "requests.py",
        "if session.roster != context.roster:",
        "if False:",
        "test_message_under_another_roster_is_refused",
    ),
    Check(
        "session",
        "requests.py",
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
    Check(
        "freshness",
        "requests.py",
        "if newest is not None and session.order <= newest:",
        "if False:",
        "test_session_that_is_not_newer_is_refused",
    ),
    Check(
        "freshness, same attempt",
        "requests.py",
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
        "padded roster",
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
    Check(
        "boxes of neighbours only",
        "dealing.py",
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
    Check(
        "sender is the transport's",
        "replies.py",
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
    Check(
        "reply of this session",
        "replies.py",
        "if session != self._session:",
        "if False:",
        "test_reply_of_another_session_is_rejected",
    ),
    Check(
        "adverts at the coordinator",
        "replies.py",
        "        checks.require_advert(self._context, advert)\n",
        "",
        "test_forged_advert_and_reused_key_are_rejected",
    ),
    Check(
        "reused keys at the coordinator",
        "replies.py",
        "checks.require_distinct(self._context, [*self.adverts.values(), advert])",
        "pass",
        "test_forged_advert_and_reused_key_are_rejected",
    ),
    Check(
        "boxes for all neighbours",
        "replies.py",
        "if boxes.keys() != self.graph.neighbours(reply.sender):",
        "if False:",
        "test_boxes_for_others_than_the_neighbours_are_rejected",
    ),
    Check(
        "length of a vector",
        "replies.py",
        "if reply.length != self._length or self.total is None:",
        "if self.total is None:",
        "test_vector_of_another_length_is_rejected",
    ),
    Check(
        "signatures at the coordinator",
        "replies.py",
        "if not statements.verified(public, statements.VIEW, view, reply.signature):",
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
    Check(
        "a view has its adverts",
        "statements.py",
        "session.to_bytes() + adverts + model",
        "session.to_bytes() + model",
        "test_two_adverts_of_a_colluder_to_two_groups_are_refused",
    ),
    Check(
        "a view has its drop-outs",
        "statements.py",
        "return head + _indices(survivors) + _indices(dropped)",
        "return head + _indices(survivors)",
        "test_a_drop_out_that_only_one_group_hears_of_is_refused",
    ),
    _checks(
        "one sum of the same vectors",
        "if before and survivors != before:",
        "if False:",
        "test_noised_vectors_whose_sum_was_opened_are_in_no_sum_over_others",
    ),
    _institution(
        "who opens is bound",
        "Stage.OPENED, request, reply, told.survivors)",
        "Stage.OPENED, request, reply)",
        "test_noised_vectors_whose_sum_was_opened_are_in_no_sum_over_others",
    ),
    _institution(
        "who signs on a ring is bound",
        "bound = () if party.context.parameters.degree is None else told.survivors",
        "bound = ()",
        "test_an_institution_is_bound_where_it_opens_and_on_a_ring_where_it_signs",
    ),
    _client(
        "later attempts are bound",
        "opened_over=self._freshness.opened_over(*of_sum)",
        "opened_over=()",
        "test_noised_vectors_whose_sum_was_opened_are_in_no_sum_over_others",
    ),
    _remembered(
        "over whom a sum was opened",
        "survivors=over or durable.survivors)",
        "survivors=durable.survivors)",
        "test_over_whom_a_sum_was_opened_is_known_to_every_later_attempt",
    ),
    _remembered(
        "one sum of the same vectors on disk",
        "if over and durable.survivors not in {(), over}:",
        "if False:",
        "test_a_second_sum_over_others_is_not_written",
    ),
    _client(
        "instruction with its model only",
        "        if isinstance(asked, Instruction):\n",
        "        if False:\n",
        "test_another_model_than_the_signed_one_is_refused_before_any_work",
    ),
    _client(
        "sums that the study has",
        "if (session.purpose, session.round) not in self._planned:",
        "if False:",
        "test_a_session_that_the_study_has_not_is_refused_and_leaves_no_trace",
    ),
    _client(
        "spent before keys are made",
        "        self._require_unspent(session)\n",
        "",
        "test_a_round_whose_vector_was_sent_is_refused_at_the_invitation",
    ),
    _client(
        "spent before work is done",
        "        self._require_unspent(session, name)\n",
        "",
        "test_nothing_is_computed_for_a_model_whose_vector_was_sent",
    ),
    _client(
        "spent before a vector leaves",
        "            self._require_unspent(session, task.model)\n",
        "",
        "test_two_sessions_of_one_model_at_once_give_one_vector",
    ),
    _client(
        "instruction for this work",
        "if (session.purpose, session.round) != (purpose, round_):",
        "if False:",
        "test_another_model_than_the_signed_one_is_refused_before_any_work",
    ),
    _client(
        "model beside an instruction",
        "if asked.model != hashlib.sha256(model).digest():",
        "if False:",
        "test_another_model_than_the_signed_one_is_refused_before_any_work",
    ),
    _client(
        "noised vectors may be sent again",
        "if session.purpose in self._noised or sent is None or sent == session.order:",
        "if sent is None or sent == session.order:",
        "test_a_noised_vector_goes_under_fresh_keys_in_a_second_attempt",
    ),
    _client(
        "round of a vector that was sent",
        "if session.round <= sent[0]:",
        "if False:",
        "test_a_vector_without_noise_is_refused_to_a_second_attempt",
    ),
    _client(
        "model of a vector that was sent",
        "if self._freshness.was_used(session.purpose, model):",
        "if False:",
        "test_one_models_counts_are_not_given_in_a_second_round",
    ),
    _client(
        "models are remembered",
        'return "" if session.purpose in self._noised else model',
        'return ""',
        "test_one_models_counts_are_not_given_in_a_second_round",
    ),
    _client(
        "models are remembered at a repeated request",
        "self._noted(machine.receive(message), model).reply",
        "self._noted(machine.receive(message)).reply",
        "test_a_model_is_used_though_the_disk_failed_when_its_vector_was_about_to_leave",
    ),
    _client(
        "secrets go with work that fails",
        '                machine.abort("its work failed")\n',
        "                pass\n",
        "test_where_the_work_fails_the_secrets_of_its_session_are_gone",
    ),
    _client(
        "models by their values",
        '"<f4") + np.float32(0)',
        '"<f4")',
        "test_a_model_is_known_by_its_values",
    ),
    _client(
        "zeros are no body",
        'values.data if values.any() else b""',
        "values.data",
        "test_a_model_is_known_by_its_values",
    ),
    _client(
        "model of whole values",
        "if len(model) % 4:",
        "if False:",
        "test_a_model_is_known_by_its_values",
    ),
    _client(
        "on disk before a reply",
        "            self._freshness.note(step.durable, model)\n",
        "            pass\n",
        "test_a_reply_is_not_given_where_the_disk_does_not_take_it",
    ),
    _client(
        "abort names its reason",
        "        if step.aborted is not None:\n            raise step.aborted\n",
        "",
        "test_a_site_that_gives_up_says_why_and_answers_nothing",
    ),
    _client(
        "older attempts are forgotten",
        "if not _replaced(s, session)",
        "if True",
        "test_an_older_attempt_at_the_same_sum_is_forgotten",
    ),
    _client(
        "two sessions alive",
        "        while len(self._machines) > ALIVE:\n",
        "        while len(self._machines) > 99:\n",
        "test_two_sessions_are_alive_at_most",
    ),
    _client(
        "a refused invitation replaces nothing",
        "        step = machine.receive(message)\n"
        "        self._machines = {s: m for s, m in self._machines.items() "
        "if not _replaced(s, session)}\n",
        "        self._machines = {s: m for s, m in self._machines.items() "
        "if not _replaced(s, session)}\n"
        "        step = machine.receive(message)\n",
        "test_an_invitation_that_nobody_signed_ends_no_session",
    ),
    _client(
        "an instruction comes alone",
        "if len(parts) != 1 or not isinstance(asked, Instruction):",
        "if not isinstance(asked, Instruction):",
        "test_an_instruction_comes_alone_and_is_one",
    ),
    _client(
        "a complaint goes out",
        "            if not complaint:\n                raise\n",
        "            raise\n",
        "test_who_gets_a_box_that_does_not_open_says_whose_and_is_left_behind",
    ),
    _client(
        "close gives the lock back",
        "        self._freshness.close()\n",
        "        pass\n",
        "test_a_worker_restarted_in_mid_session_drops_out_and_rejoins_in_the_next_round",
    ),
    _remembered(
        "one process has the file",
        "                self._require_locked()\n                self._begun",
        "                self._begun",
        "test_a_worker_that_starts_while_the_old_one_masks_is_refused_and_reads_nothing",
    ),
    _remembered(
        "nothing is noted without the lock",
        "        self._require_locked()\n        session = durable.session\n",
        "        session = durable.session\n",
        "test_an_old_worker_that_ends_late_can_note_nothing_once_the_lock_is_given_back",
    ),
    _remembered(
        "a file that is gone",
        "if data is None and marked:",
        "if False:",
        "test_a_file_deleted_after_the_first_start_is_noticed_and_no_copy_is_asked_for",
    ),
    _remembered(
        "a start that finds damage gives the lock back",
        "            self.close()\n            raise self._broken(f\"can't be read",
        "            raise self._broken(f\"can't be read",
        "test_a_start_that_fails_gives_the_lock_back",
    ),
    _remembered(
        "a start that finds nothing gives the lock back",
        "        except (FederationError, StorageError):\n            self.close()\n",
        "        except (FederationError, StorageError):\n            pass\n",
        "test_a_site_whose_memory_is_gone_gives_the_lock_back",
    ),
    _remembered(
        "sessions go up",
        "if newest is not None and session.order <= newest:",
        "if False:",
        "test_what_goes_back_behind_a_remembered_session_is_not_written",
    ),
    _remembered(
        "a second reply of one stage",
        "        if before is not None:\n",
        "        if False:\n",
        "test_a_second_different_reply_of_one_stage_is_not_written",
    ),
    _remembered(
        "the same reply again",
        "        if before == durable.reply_sha256:\n",
        "        if False:\n",
        "test_the_same_reply_again_writes_nothing",
    ),
    _remembered(
        "a round beside the next one's keys",
        "if {b.round for b in later} == {round_ + 1} and",
        "if False and",
        "test_a_round_is_tried_again_beside_the_next_rounds_keys",
    ),
    _remembered(
        "a round that is over",
        " and all(b.is_ahead for b in later):",
        ":",
        "test_a_round_is_over_once_a_vector_of_the_next_one_was_sent",
    ),
    _remembered(
        "the round before, no other",
        "if {b.round for b in later} == {round_ + 1} and",
        "if later and",
        "test_a_round_is_tried_again_beside_the_next_rounds_keys",
    ),
    _remembered(
        "the newest vector is kept",
        "[b for b in by_order.values() if Stage.MASKED in b.stages][-1:]",
        "[]",
        "test_the_newest_vector_sent_is_remembered_over_any_number_of_sessions",
    ),
    _remembered(
        "every model is kept",
        "(*models.get(purpose, ()), model)",
        "(model,)",
        "test_every_model_is_remembered_of_its_purpose_after_any_number_of_rounds",
    ),
    _remembered(
        "models of a purpose apart",
        "return model in self._models.get(purpose, ())",
        "return any(model in some for some in self._models.values())",
        "test_every_model_is_remembered_of_its_purpose_after_any_number_of_rounds",
    ),
    _remembered(
        "purposes on disk",
        "if not {*content, *models} <= set(PURPOSES):",
        "if False:",
        "test_a_damaged_file_is_refused_and_never_begun_anew",
    ),
    _remembered(
        "order on disk",
        "if any(a.order >= b.order for some in found.values() for a, b in pairwise(some)):",
        "if False:",
        "test_a_damaged_file_is_refused_and_never_begun_anew",
    ),
    _remembered(
        "models on disk are hashes",
        "if not all(re.fullmatch(_SHA256, model) for some in models.values() for model in some):",
        "if False:",
        "test_a_damaged_file_is_refused_and_never_begun_anew",
    ),
    _remembered(
        "numbers on disk",
        "if any(type(n) is not int or n < 1 for n in numbers):",
        "if False:",
        "test_a_damaged_file_is_refused_and_never_begun_anew",
    ),
    _remembered(
        "stages on disk",
        "if not begun.stages.keys() <= _STAGES:",
        "if False:",
        "test_a_damaged_file_is_refused_and_never_begun_anew",
    ),
    _remembered(
        "replies on disk are hashes",
        "if not all(re.fullmatch(_SHA256, digest) for digest in begun.stages.values()):",
        "if False:",
        "test_a_damaged_file_is_refused_and_never_begun_anew",
    ),
    _server(
        "quorum",
        "elif len(there) < self._quorum:",
        "elif False:",
        "test_below_the_studys_quorum_nobody_is_asked_to_sign",
    ),
    _server(
        "keys ahead of all who are there",
        "if here <= ahead.members:",
        "if True:",
        "test_who_missed_a_stage_rejoins_by_a_full_session",
    ),
    _server(
        "keys ahead of this sum",
        "if ahead is None or (ahead.session.purpose, ahead.session.round) != (purpose, round_):",
        "if ahead is None:",
        "test_keys_ahead_of_another_sum_are_not_used",
    ),
    _trips(
        "no body in a secure sum",
        "            if reply.body:\n",
        "            if False:\n",
        "test_a_reply_with_a_body_is_refused_and_recorded",
    ),
    _trips(
        "who is away is not asked",
        "        if stage == STAGES[Phase.ADVERTS]:",
        "        if False:",
        "test_who_is_away_is_not_invited",
    ),
    _trips(
        "a refusal ends no sum",
        "        except SecaggError as error:\n"
        "            self._refused(name, error, round_)\n            return",
        "        except ZeroDivisionError as error:\n"
        "            self._refused(name, error, round_)\n            return",
        "test_a_reply_with_a_body_is_refused_and_recorded",
    ),
    _trips(
        "a refused part leaves the others be",
        "            self._take_part(name, part, sessions, round_)\n",
        "            self._take_part(name, part, sessions, round_)\n            break\n",
        "test_a_refused_part_leaves_the_part_for_the_session_ahead",
    ),
    _server(
        "enough are waited for",
        "self._patience.await_enough(what, self._names, needed, self._present)",
        "pass",
        "test_who_is_away_for_a_moment_costs_no_attempt",
    ),
    _server(
        "who stays away ends the sum",
        "            if isinstance(wanted.ended[-1], AbsentError):\n",
        "            if False:\n",
        "test_who_stays_away_ends_the_sum_at_the_deadline_and_is_named",
    ),
    _server(
        "a pause between attempts",
        "                self._patience.pause()\n",
        "                pass\n",
        "test_between_attempts_there_is_a_pause",
    ),
    _server(
        "attempts rise",
        "attempt=self._attempts.begin(purpose, round_),",
        "attempt=1,",
        "test_who_missed_a_stage_rejoins_by_a_full_session",
    ),
    _server(
        "keys ahead that fail are forgotten",
        "            except Aborted as error:\n"
        '                log.info("keys fetched ahead are void: %s", error)\n',
        "            except ZeroDivisionError as error:\n"
        '                log.info("keys fetched ahead are void: %s", error)\n',
        "test_keys_ahead_of_too_few_are_void_and_this_sum_goes_on",
    ),
    _trips(
        "a complaint is no breach",
        "        if isinstance(error, ComplaintError):",
        "        if False:",
        "test_who_gets_a_box_that_does_not_open_says_whose_and_is_left_behind",
    ),
    _server(
        "asked for is on disk before the instruction leaves",
        "        self._attempts.ask(purpose, round_)\n"
        "        current.requests = current.machine.instruct(model)\n"
        "        self._trips.go(purpose, round_, wanted.body, [current], course)\n",
        "        current.requests = current.machine.instruct(model)\n"
        "        self._trips.go(purpose, round_, wanted.body, [current], course)\n"
        "        self._attempts.ask(purpose, round_)\n",
        "test_what_is_tried_is_on_disk_before_a_request_leaves",
    ),
    _server(
        "a quorum above the cohort, of vectors left",
        "return max(self._quorum, self._contexts[purpose].parameters.min_cohort)",
        "return self._contexts[purpose].parameters.min_cohort",
        "test_a_quorum_above_the_cohort_counts",
    ),
    _server(
        "the quorum of keys before a model is sent",
        "            current.requests = current.machine.close()\n"
        '            self._require_kept(current, current.members, "sent keys")\n',
        "            current.requests = current.machine.close()\n",
        "test_below_the_studys_quorum_no_vector_is_asked_for",
    ),
    _server(
        "the quorum of keys ahead before a model is sent",
        'round_, over)\n        self._require_kept(current, current.members, "sent keys")\n',
        "round_, over)\n",
        "test_keys_fetched_ahead_by_fewer_than_the_quorum_bring_no_model",
    ),
    _server(
        "over whom is on disk before what binds leaves",
        " [current, *self._advancing()], course, note)\n",
        " [current, *self._advancing()], course)\n            note()\n",
        "test_over_whom_is_on_disk_before_the_first_request_that_binds_and_no_earlier",
    ),
    _server(
        "over whom is noted only as a request leaves",
        " [current, *self._advancing()], course, note)\n",
        " [current, *self._advancing()], course, note())\n",
        "test_a_set_that_nobody_could_be_asked_to_open_binds_nobody",
    ),
    _server(
        "a noised sum again over the same",
        "self._tried(wanted, self._again.over(purpose, round_))",
        "self._tried(wanted, ())",
        "test_after_shares_were_given_the_sum_comes_about_over_the_same_though_another_is_back",
    ),
    _server(
        "nobody else is invited",
        "if not only or i in only}",
        "if True}",
        "test_within_one_life_a_second_attempt_is_over_the_same",
    ),
    _server(
        "those needed are waited for",
        "self._patience.await_enough(again, over, len(over), self._present)",
        "self._patience.await_enough(again, over, len(over) - 1, self._present)",
        "test_who_is_needed_and_away_for_a_while_is_waited_for",
    ),
    _server(
        "nothing that binds over less than the same",
        "if current.over and not current.over <= set(there):",
        "if False:",
        "test_one_of_them_that_misses_a_stage_ends_the_attempt_before_anything_that_binds",
    ),
    _server(
        "keys ahead of the same",
        "self._begin(*following, self._again.over(*following))",
        "self._begin(*following)",
        "test_keys_fetched_ahead_are_of_the_same_institutions",
    ),
    _server(
        "keys ahead are used for the same",
        "for name in over or self._present()}",
        "for name in self._present()}",
        "test_keys_fetched_ahead_are_of_the_same_institutions",
    ),
    _server(
        "keys ahead of those who are in this sum",
        "if i in there}",
        "if True}",
        "test_keys_fetched_ahead_without_one_of_them_are_void",
    ),
    _server(
        "a set that nobody is bound to does not block",
        "if self._others_may(purpose, round_) and",
        "if False and",
        "test_a_set_that_was_noted_and_never_asked_to_open_does_not_block",
    ),
    _again(
        "others only where it does no harm",
        'harmless = parameters.adversary == "malicious" and parameters.degree is None',
        "harmless = True",
        "test_where_the_first_to_answer_would_be_bound_nobody_else_is_asked",
    ),
    _again(
        "on a ring signing binds",
        'signs = parameters.adversary == "malicious" and parameters.degree is not None',
        "signs = False",
        "test_over_whom_is_on_disk_before_the_first_request_that_binds_and_no_earlier",
    ),
    _again(
        "where all are neighbours signing does not bind",
        'signs = parameters.adversary == "malicious" and parameters.degree is not None',
        'signs = parameters.adversary == "malicious"',
        "test_over_whom_is_on_disk_before_the_first_request_that_binds_and_no_earlier",
    ),
    _again(
        "noised vectors alone are bound",
        "if purpose in self._noised and phase",
        "if phase",
        "test_nothing_is_noted_of_vectors_that_are_given_once",
    ),
    _again(
        "a set of this study",
        "if strangers := sorted(set(over) - set(self._parameters[purpose].institutions)):",
        "if strangers := []:",
        "test_a_set_that_is_not_of_this_study_is_refused",
    ),
    _outcome(
        "a noised retry says over whom",
        "        if self.over:\n",
        "        if False:\n",
        "test_who_is_needed_and_gone_for_good_is_named_after_the_limit_with_all_who_are_needed",
    ),
    _outcome(
        "given for want of others only",
        "left < self.needed:",
        "self.course.spent:",
        "test_where_the_others_could_be_enough_the_run_can_go_on",
    ),
    _outcome(
        "noised vectors are not said to be given",
        "if not self.noised and left",
        "if left",
        "test_vectors_with_noise_of_their_own_are_never_said_to_be_given",
    ),
    _outcome(
        "spent of this sum",
        "if stage in _OF_THIS_SUM:",
        "if True:",
        "test_what_is_said_where_the_next_sums_keys_travel_along_is_not_of_this_sum",
    ),
    _outcome(
        "said where nobody tells",
        "if not self.noised and self.asked and not self.course.answered:",
        "if False:",
        "test_where_none_answers_what_was_asked_for_is_not_taken_to_be_given",
    ),
    _outcome(
        "given is never inferred",
        "    def _unheard(self) -> FederationError:\n"
        '        """Nobody says anything: it is not known whether vectors were given."""\n'
        "        return FederationError(\n",
        "    def _unheard(self) -> FederationError:\n        return GivenError(\n",
        "test_where_none_answers_what_was_asked_for_is_not_taken_to_be_given",
    ),
    _outcome(
        "who answered before has answered",
        "        self.attempts += 1\n",
        "        self.attempts += 1\n        self.answered = False\n",
        "test_who_answered_and_went_away_has_not_given_what_it_was_asked_for",
    ),
    _tried(
        "attempts begun are kept",
        "        self._keep({(purpose, round_): replace(tried, attempts=tried.attempts + 1)})\n",
        "        self._tried[purpose, round_] = replace(tried, attempts=tried.attempts + 1)\n",
        "test_attempts_rise_by_one_over_restarts_of_each_sum_apart",
    ),
    _tried(
        "attempts asked are kept",
        "            self._keep({(purpose, round_): replace(tried, asked=True)})\n",
        "            self._tried[purpose, round_] = replace(tried, asked=True)\n",
        "test_that_vectors_were_asked_for_outlives_a_restart",
    ),
    _tried(
        "attempts outlive a crash",
        "        replace_file(DISK, path, data)\n",
        '        disk = __import__("common.io.disk", fromlist=[""])\n'
        "        disk.write_at(DISK, path, data, 0, create=True)\n",
        "test_what_was_tried_outlives_any_crash_after_it",
    ),
    _tried(
        "attempts that the disk does not take are not begun",
        "        following = {**self._tried, **changed}\n",
        "        following = self._tried = {**self._tried, **changed}\n",
        "test_attempts_that_the_disk_does_not_take_are_not_begun",
    ),
    _tried(
        "a damaged file of attempts is not begun anew",
        "        except (ValueError, TypeError, AttributeError):\n",
        "        except (ValueError, TypeError, AttributeError):\n"
        "            self._tried = {}\n            return\n",
        "test_a_damaged_file_of_attempts_is_refused",
    ),
    _tried(
        "attempts are numbers",
        "if type(self.attempts) is not int or self.attempts < 0 or type(self.asked) is not bool:",
        "if False:",
        "test_a_damaged_file_of_attempts_is_refused",
    ),
    _tried(
        "a set is kept",
        "            self._keep({**past, (purpose, round_): replace(tried, over=over)})\n",
        "            self._tried[purpose, round_] = replace(tried, over=over)\n",
        "test_over_whom_a_sum_may_have_been_opened_outlives_a_restart",
    ),
    _tried(
        "sets of earlier rounds are forgotten",
        "if p == purpose and r < round_",
        "if False",
        "test_sets_of_earlier_rounds_of_the_purpose_are_forgotten_and_numbers_stay",
    ),
    _tried(
        "sets of later rounds and of the other purpose are kept",
        "if p == purpose and r < round_",
        "if r != round_",
        "test_sets_of_earlier_rounds_of_the_purpose_are_forgotten_and_numbers_stay",
    ),
    _tried(
        "a set is a list",
        "    if type(over) is not list:\n",
        "    if False:\n",
        "test_a_set_that_is_none_is_damage",
    ),
    _tried(
        "a set is of names, each once",
        "if len(set(self.over)) < len(self.over) or not all(type(n) is str for n in self.over):",
        "if False:",
        "test_a_set_that_is_none_is_damage",
    ),
    _tried(
        "attempts of known purposes",
        "    if not content.keys() <= set(PURPOSES):\n",
        "    if False:\n",
        "test_a_damaged_file_of_attempts_is_refused",
    ),
    _server(
        "the next sum is numbered before vectors are asked for",
        "        ahead = self._begin_ahead(wanted.following)\n"
        "        # 2. the model out, masked vectors back\n"
        "        model = hashlib.sha256(wanted.body).digest()\n"
        "        self._attempts.ask(purpose, round_)\n"
        "        current.requests = current.machine.instruct(model)\n"
        "        self._trips.go(purpose, round_, wanted.body, [current], course)\n",
        "        model = hashlib.sha256(wanted.body).digest()\n"
        "        self._attempts.ask(purpose, round_)\n"
        "        current.requests = current.machine.instruct(model)\n"
        "        self._trips.go(purpose, round_, wanted.body, [current], course)\n"
        "        ahead = self._begin_ahead(wanted.following)\n",
        "test_a_disk_that_is_full_once_vectors_are_asked_for_costs_no_sum",
    ),
    _audit(
        "room for a sum's entries serves when the disk is full",
        "            if not self._reserve.release():\n",
        "            if True:\n",
        "test_replies_that_came_on_a_full_disk_are_logged_and_used",
    ),
    _audit(
        "room for a sum's entries before vectors are asked for",
        "        if kind in _VECTORS:\n",
        "        if False:\n",
        "test_no_vector_is_asked_for_without_room_for_what_follows",
    ),
    _audit(
        "room for what a cohort logs",
        "_ROOM + _ROOM_EACH * n",
        "_ROOM",
        "test_the_room_holds_all_entries_of_a_sum_of_the_longest_names",
    ),
    _vectors(
        "moduli of 16 to 32 bits",
        "    if type(k) is not int or not MIN_BITS <= k <= MAX_BITS:\n",
        "    if False:\n",
        "test_moduli_threads_and_kinds_of_arrays_are_those_of_the_steps",
    ),
    _vectors(
        "vectors of one type",
        "    if not isinstance(values, np.ndarray) or values.dtype != dtype:\n",
        "    if not isinstance(values, np.ndarray):\n",
        "test_another_kind_of_array_is_refused_and_named",
    ),
    _vectors(
        "vectors that are flat and contiguous",
        "    if values.ndim != 1 or not values.flags.c_contiguous or not values.flags.aligned:\n",
        "    if False:\n",
        "test_another_kind_of_array_is_refused_and_named",
    ),
    _vectors(
        "vectors that can be written",
        "    if writable and not values.flags.writeable:\n",
        "    if False:\n",
        "test_a_read_only_vector_is_refused_only_where_it_is_written",
    ),
    _vectors(
        "parts begin at units",
        "    size = -(-units // (used * _PARTS_A_THREAD)) * PART_UNIT\n",
        "    size = -(-n // (used * _PARTS_A_THREAD))\n",
        "test_parts_cover_the_vector_once_and_begin_at_units",
    ),
    _vectors(
        "a slow thread's parts are taken by others",
        "_PARTS_A_THREAD: Final = 8\n",
        "_PARTS_A_THREAD: Final = 1\n",
        "test_what_a_slow_thread_does_not_take_the_others_do",
    ),
    _vectors(
        "errors of threads are raised",
        "    return [own, *(other.result() for other in others)]\n",
        "    return [own, *(o.result() for o in others if o.exception() is None)]\n",
        "test_an_error_of_any_thread_is_raised_after_the_others_have_ended",
    ),
    _vectors(
        "one thread or more",
        "    if type(threads) is not int or threads < 1:\n",
        "    if False:\n",
        "test_fewer_threads_than_one_are_refused_even_of_nothing",
    ),
    _pipeline(
        "no mask of one key twice",
        "    require_distinct(masks)\n",
        "",
        "test_one_key_twice_is_refused_and_nothing_is_written",
    ),
    _pipeline(
        "all masks on every piece",
        "                add_piece_(piece, streams, words[: last - first])\n",
        "                add_piece_(piece, streams[1:], words[: last - first])\n",
        "test_levels_packed_or_not_become_the_bytes_of_masking_and_packing",
    ),
    _pipeline(
        "what is unmasked has no bit above the modulus",
        "        np.bitwise_and(piece, low, out=values[first : first + len(piece)])\n",
        "        values[first : first + len(piece)] = piece\n",
        "test_what_is_unmasked_are_the_values_with_masks_added_whatever_pieces_and_threads",
    ),
    Check(
        "a word's carry in the running total",
        "adding.py",
        "            np.add(total[1:], carried[:-1], out=total[1:])\n",
        "",
        "test_the_total_is_the_stream_of_the_sums_at_each_length",
    ),
    Check(
        "values added are kept apart",
        "adding.py",
        "        np.bitwise_and(total, self._rest[:n], out=total)\n",
        "",
        "test_the_total_is_the_stream_of_the_sums_at_each_length",
    ),
    Check(
        "what is added is checked first",
        "adding.py",
        "stream = checked_stream(data, self._n, self._k)",
        "stream = np.frombuffer(data, np.uint8)",
        "test_each_stray_bit_after_the_last_value_is_refused",
    ),
    _pipeline(
        "masks go on where a part begins",
        "open_streams(masks, start // BLOCK_WORDS)",
        "open_streams(masks, 0)",
        "test_levels_packed_or_not_become_the_bytes_of_masking_and_packing",
    ),
    _pipeline(
        "what is masked is only read",
        "        piece = packer.room(n)\n"
        "        np.copyto(piece, vector[first : first + n])\n"
        "        return piece\n",
        "        packer.room(n)[:] = vector[first : first + n]\n"
        "        vector[first : first + n] = 0\n"
        "        return packer.room(n)\n",
        "test_levels_packed_or_not_become_the_bytes_of_masking_and_packing",
    ),
    _pipeline(
        "rounding goes on where a part begins",
        "            rounding.seek(start)\n",
        "            rounding.seek(0)\n",
        "test_an_update_becomes_the_bytes_of_weighting_rounding_and_packing",
    ),
    _pipeline(
        "what is rounded is weighted",
        "                np.multiply(update[first:last], share, out=piece)\n",
        "                np.copyto(piece, update[first:last])\n",
        "test_an_update_becomes_the_bytes_of_weighting_rounding_and_packing",
    ),
    _pipeline(
        "what is not finite counts as 0",
        "    values[~finite] = 0.0\n",
        "    values[~finite] = 1.0\n",
        "test_values_that_are_not_finite_count_as_zero_and_are_told",
    ),
    _pipeline(
        "rounding refuses moduli below the grid's",
        "    require_no_wrap(k, grid.value_bits, 1)\n",
        "",
        "test_rounding_refuses_other_moduli_threads_and_kinds_of_arrays",
    ),
    _pipeline(
        "no copy of the update",
        "    n, room = len(update), room_for(out, len(update), k)\n",
        "    update = update.copy()\n    n, room = len(update), room_for(out, len(update), k)\n",
        "test_memory_of_rounding_beside_update_and_levels_is_small",
    ),
    _gate(
        "signature before body",
        "            node = await self._node_of(scope)\n",
        "            node = 1\n",
        "test_a_head_that_no_registered_node_has_signed_is_refused_before_its_body",
    ),
    _gate(
        "room before body",
        "            if not there_is:\n                return _NO_ROOM\n",
        "",
        "test_half_sent_bodies_of_many_nodes_never_hold_more_than_all_room",
    ),
    _gate(
        "bodies that are too large",
        "        if len(body) > limits.max_body:\n",
        "        if False:\n",
        "test_a_body_that_is_too_large_is_refused_by_its_length_and_by_its_bytes",
    ),
    _gate(
        "no body to health",
        "    most = 0 if path == HEALTH else limits.max_body\n",
        "    most = limits.max_body\n",
        "test_a_body_to_health_is_refused_unread",
    ),
    _limits(
        "a node's share of the room",
        "min(free, self._limits.node_bodies - self._held[node])",
        "free",
        "test_room_is_bounded_for_a_node_and_for_all_and_given_back",
    ),
    _limits(
        "all nodes' room",
        "min(free, self._limits.node_bodies - self._held[node])",
        "self._limits.node_bodies - self._held[node]",
        "test_room_is_bounded_for_a_node_and_for_all_and_given_back",
    ),
    _limits(
        "room of requests that fail is given back",
        "        try:\n            yield True\n        finally:\n"
        "            self._held[node] -= size\n",
        "        if True:\n            yield True\n        if True:\n"
        "            self._held[node] -= size\n",
        "test_room_is_given_back_when_a_request_fails",
    ),
    _flower(
        "a node confirms its own messages only",
        "        if not handed.has_message(request.node.node_id, request.message_object_id):\n",
        "        if False:\n",
        "test_a_node_cannot_delete_anothers_message_before_or_after_it_was_handed_over",
    ),
    _flower(
        "a node fetches its own objects only",
        "        if not handed.has_object(request.node.node_id, request.object_id):\n",
        "        if False:\n",
        "test_a_node_fetches_all_objects_of_its_messages_and_none_of_anothers",
    ),
    _flower(
        "a node answers in its own name only",
        "    if {message.metadata.src_node_id for message in request.messages_list} - {node}:\n",
        "    if False:\n",
        "test_a_node_answers_in_its_own_name_only",
    ),
    Check(
        "trip: waits for who is away",
        "server/exchange.py",
        "        return waits or bool(pending) or",
        "        return bool(pending) or",
        "test_while_too_few_have_replied_an_absence_may_last_as_long_as_the_deadline",
    ),
    Check(
        "trip: waits for who has not said its name",
        "server/exchange.py",
        " or self._greeter.awaited(missing)\n",
        "\n",
        "test_an_institution_that_is_back_a_moment_later_than_the_others_reply_is_waited_for",
    ),
    Check(
        "trip: ends with its deadline",
        "server/exchange.py",
        "clock() >= trip.deadline\n",
        "clock() >= trip.deadline + 100\n",
        "test_a_node_that_is_back_too_late_ends_the_trip_with_the_deadline",
    ),
    Check(
        "trip: who answers twice counts once",
        "server/exchange.py",
        "        for message in others:\n            del trip.pending[message]\n",
        "",
        "test_who_answers_twice_counts_once_and_nothing_more_is_awaited",
    ),
    Check(
        "trip: what is awaited no longer is dropped",
        "server/exchange.py",
        "        self._mail.drop(trip.pending)\n",
        "",
        "test_what_is_awaited_no_longer_is_dropped",
    ),
    Check(
        "trip: who sends too much is not asked again",
        "server/exchange.py",
        "        (self.refused if answer is Lost.TOO_LARGE else self.replied).add(name)\n",
        "        if answer is Lost.TOO_LARGE:\n            turn.has_failed(now)\n"
        '            return ""\n        self.replied.add(name)\n',
        "test_a_reply_larger_than_any_costs_its_institution_the_trip_and_the_others_nothing",
    ),
    Check(
        "trip: that a request leaves is told",
        "server/exchange.py",
        "            trip.leaving()\n",
        "",
        "test_that_a_request_leaves_is_told_once_and_before_the_first_does",
    ),
    Check(
        "trip: that a request leaves is told once",
        "server/exchange.py",
        "            trip.has_left = True\n",
        "",
        "test_that_a_request_leaves_is_told_once_and_before_the_first_does",
    ),
    Check(
        "trip: that a request leaves is told where one does",
        "server/exchange.py",
        "        self._greeter.look(anew=True)\n        while self._go_on(trip, take):\n",
        "        self._greeter.look(anew=True)\n"
        "        leaving()\n        while self._go_on(trip, take):\n",
        "test_that_a_request_leaves_is_not_told_where_nobody_can_be_reached",
    ),
    Check(
        "trip: three tries",
        "server/absences.py",
        "        return self.failed < TRIES\n",
        "        return True\n",
        "test_a_failed_request_is_sent_three_times",
    ),
    Check(
        "trip: what gets lost is no try",
        "server/absences.py",
        "        self.lost += 1\n",
        "        self.lost += 1\n        self.failed += 1\n",
        "test_what_gets_lost_on_its_way_is_sent_after_pauses_that_double_and_is_no_try",
    ),
    Check(
        "trip: pauses double",
        "server/absences.py",
        "now + _pause_s(self.lost), False",
        "now + 1.0, False",
        "test_what_gets_lost_on_its_way_is_sent_after_pauses_that_double_and_is_no_try",
    ),
    Check(
        "trip: one short wait in all trips",
        "server/absences.py",
        "            self._since.setdefault(name, now)\n",
        "            self._since[name] = now\n",
        "test_who_has_left_for_good_costs_all_trips_with_a_quorum_one_short_wait",
    ),
    Check(
        "trip: a reply gives another wait",
        "server/absences.py",
        "        self._since.pop(name, None)\n",
        "        pass\n",
        "test_an_institution_that_has_replied_again_is_waited_for_again",
    ),
    Check(
        "trip: no wait for a quorum out of reach",
        "server/absences.py",
        "        if replied < needed <= replied + pending + len(away):\n",
        "        if replied < needed:\n",
        "test_nobody_is_waited_for_who_cannot_make_a_quorum_any_more",
    ),
    Check(
        "trip: who is silent is asked again",
        "server/absences.py",
        "            return now >= self.again\n",
        "            return False\n",
        "test_a_node_that_took_a_request_and_was_started_anew_under_its_number_is_asked_again",
    ),
    Check(
        "trip: who never was here is not waited for",
        "server/absences.py",
        "        if name in known and turn",
        "        if turn",
        "test_an_institution_that_never_was_here_is_not_waited_for",
    ),
    Check(
        "hello: a node has its key's name only",
        "server/greeting.py",
        "        claims = owner != name and not is_nameless\n",
        "        claims = False\n",
        "test_a_registered_node_that_claims_anothers_name_is_refused_and_named",
    ),
    Check(
        "hello: nodes of others are not greeted",
        "server/greeting.py",
        "        if self._may_be(node, self._roster):\n",
        "        if True:\n",
        "test_a_node_whose_institution_is_not_in_the_study_is_not_greeted_and_said_once",
    ),
    Check(
        "hello: one grace",
        "server/greeting.py",
        "        self._grace_ends.setdefault(self._grace_of(node), now + self._grace_s)\n",
        "        self._grace_ends[self._grace_of(node)] = now + self._grace_s\n",
        "test_a_mute_node_that_comes_and_goes_gets_no_second_grace",
    ),
    Check(
        "hello: unknown nodes have one grace together",
        "server/greeting.py",
        "        return None if self._owners is None else node\n",
        "        return node\n",
        "test_nodes_that_nobody_knows_have_one_grace_together_and_are_forgotten_when_they_leave",
    ),
    Check(
        "hello: names on the roster only",
        "server/greeting.py",
        "        if reply.institution not in self._roster:\n"
        '            return "not on the roster"\n',
        "",
        "test_a_stranger_is_not_taken_in_and_the_reason_is_told",
    ),
    Check(
        "hello: the same model",
        "server/greeting.py",
        ' if fixed and reply.facts != self._facts else ""\n',
        ' if False else ""\n',
        "test_an_institution_that_comes_back_with_another_encoder_is_not_asked",
    ),
    Check(
        "hello: the same model of a latecomer",
        "server/greeting.py",
        "        fixed = self.started or reply",
        "        fixed = reply",
        "test_a_latecomer_with_another_encoder_is_not_asked",
    ),
    Check(
        "hello: one node of a name",
        "server/greeting.py",
        "        if before is not None and before in self._online:\n",
        "        if False:\n",
        "test_a_second_node_with_a_living_name_is_not_asked",
    ),
    Check(
        "hello: a silent node is greeted seldom",
        "server/greeting.py",
        "        wait_s = doubled(_FIRST_HELLO_S, _LONGEST_HELLO_S, silent.tries)\n",
        "        wait_s = _FIRST_HELLO_S\n",
        "test_a_silent_node_is_greeted_seldom_and_anew_once_it_has_been_away",
    ),
    Check(
        "hello: pauses after errors double",
        "server/greeting.py",
        "            pause_s = doubled(_FIRST_PAUSE_S, _LONGEST_PAUSE_S, silent.tries - 1)\n",
        "            pause_s = _FIRST_PAUSE_S\n",
        "test_a_node_that_answers_with_errors_is_greeted_after_pauses_that_double",
    ),
    Check(
        "hello: final refusals are of the roster",
        "server/greeting.py",
        "        if is_final and name in self._roster:\n",
        "        if name in self._roster or is_final:\n",
        "test_a_stranger_or_a_passing_refusal_does_not_end_it",
    ),
    Check(
        "hello: a refusal that passes is no final one any more",
        "server/greeting.py",
        "            self._final.discard(name)\n        pause_s",
        "            pass\n        pause_s",
        "test_a_final_refusal_that_became_a_passing_one_counts_no_more",
    ),
    Check(
        "hello: who refused is not waited for",
        "server/greeting.py",
        "            and not silent.refused\n",
        "",
        "test_a_site_that_is_mended_is_taken_in_though_its_node_never_went_away",
    ),
    Check(
        "hello: who refused is asked again soon",
        "server/greeting.py",
        "            pause_s if is_passing and not is_final else _MENDED_PAUSE_S\n",
        "            _MENDED_PAUSE_S\n",
        "test_a_site_that_is_mended_is_taken_in_though_its_node_never_went_away",
    ),
    Check(
        "sums: a message that comes again is not worked on again",
        "client/sums.py",
        "        if not answered <= self._answered:\n",
        "        if True:\n",
        "test_only_a_message_that_had_no_answer_yet_is_worked_on",
    ),
    Check(
        "sums: a first answer is told of",
        "client/sums.py",
        "            first()\n",
        "            pass\n",
        "test_only_a_message_that_had_no_answer_yet_is_worked_on",
    ),
    Check(
        "hello: waits for those who are missing only",
        "server/greeting.py",
        " and self._may_be(node, names)\n",
        "\n",
        "test_a_trip_waits_only_for_nodes_of_those_who_are_missing_in_it",
    ),
    Check(
        "hello: its answer is small",
        "server/greeting.py",
        "self._mail.fetch(tuple(out), _HELLO_BYTES)",
        "self._mail.fetch(tuple(out), 1 << 30)",
        "test_an_answer_to_a_hello_that_is_too_large_is_not_taken_and_it_is_greeted_again",
    ),
    Check(
        "mail: waits that double have an end",
        "server/mail.py",
        "2.0 ** min(times, 32)",
        "2.0 ** times",
        "test_a_wait_doubles_up_to_its_longest_however_often",
    ),
    Check(
        "mail: the grace is a part of the deadline",
        "server/mail.py",
        "        return min(self.grace_s, _GRACE_PART * deadline_s)\n",
        "        return self.grace_s\n",
        "test_the_grace_is_a_part_of_a_short_deadline",
    ),
    Check(
        "mail: a reply has its most bytes",
        "server/app.py",
        " or (isinstance(data, bytes) and len(data) > most)",
        "",
        "test_a_reply_a_byte_larger_than_it_may_be_is_not",
    ),
    Check(
        "door: the first head",
        "server/door.py",
        "        self._wait_for_head(self._limits.head_s)\n",
        "",
        "test_who_sends_slowly_is_cut_off",
    ),
    Check(
        "door: the next head",
        "server/door.py",
        "        self._wait_for_head(self._limits.idle_s)\n",
        "",
        "test_who_pauses_between_two_requests_has_the_time_for_that",
    ),
    Check(
        "door: answers are read",
        "server/door.py",
        "        self._unread = self.loop.call_later(self._limits.answer_s, "
        "self.transport.abort)\n",
        "",
        "test_who_does_not_read_its_answers_is_cut_off",
    ),
    Check(
        "door: connections are counted",
        "server/door.py",
        "        if not self._crowd.enter(address):\n",
        "        if self._crowd.enter(address) is None:\n",
        "test_one_address_holds_so_many_connections_and_others_are_served_again_after",
    ),
    Check(
        "door: the handshake",
        "server/door.py",
        "            ssl_handshake_timeout=limits.handshake_s,\n",
        "            ssl_handshake_timeout=60,\n",
        "test_a_handshake_that_never_comes_is_cut_off",
    ),
    Check(
        "door: TLS 1.3",
        "server/door.py",
        "ssl.TLSVersion.TLSv1_3",
        "ssl.TLSVersion.TLSv1_2",
        "test_only_tls_1_3_and_no_plain_text",
    ),
    Check(
        "parts: no more bytes than there may be",
        "common/io/flower_internals.py",
        "                if begun.bytes > most:\n",
        "                if False:\n",
        "test_of_a_reply_that_is_too_large_hardly_more_is_fetched_than_it_may_have",
    ),
    Check(
        "parts: a piece counts as often as it stands",
        "common/io/flower_internals.py",
        "            if _bytes_of_arrays(begun.here) > most:\n",
        "            if _bytes_of_arrays(begun.here) < 0:\n",
        "test_a_piece_that_stands_in_a_reply_many_times_counts_as_often",
    ),
    Check(
        "parts: heads are small",
        "common/io/flower_internals.py",
        " and len(data) > MOST_HEAD:\n",
        " and False:\n",
        "test_an_object_that_is_no_piece_and_large_is_not_read",
    ),
    Check(
        "parts: the last part first",
        "common/io/flower_internals.py",
        "            self._take(begun, begun.parts[:1], most)\n",
        "",
        "test_nothing_of_a_reply_is_fetched_before_its_last_part_is_there",
    ),
    Check(
        "store: a node stores its own replies only",
        "common/io/flower_internals.py",
        "        if not handed.is_part(node, name):\n",
        "        if False:\n",
        "test_a_node_stores_objects_of_its_own_replies_only",
    ),
    Check(
        "store: no more bytes than were said",
        "common/io/flower_internals.py",
        "            if not room.is_there:\n",
        "            if False:\n",
        "test_a_reply_of_more_bytes_than_it_may_have_is_not_stored",
    ),
    Check(
        "store: bytes are taken",
        "common/io/handed.py",
        "                its.left -= size\n",
        "",
        "test_a_reply_of_more_bytes_than_it_may_have_is_not_stored",
    ),
    Check(
        "store: what was not stored is given back",
        "common/io/handed.py",
        "            if its is not None and not room.is_kept:\n",
        "            if its is None:\n",
        "test_what_was_not_stored_takes_no_room",
    ),
    Check(
        "store: the oldest replies are forgotten",
        "common/io/flower_internals.py",
        "            state.object_store.delete(root)\n",
        "            root.strip()\n",
        "test_of_replies_that_nobody_takes_the_oldest_are_forgotten",
    ),
    Check(
        "store: so many objects",
        "common/io/flower_internals.py",
        "    if is_too_wide(tree):\n",
        "    if False:\n",
        "test_a_reply_of_too_many_objects_is_refused",
    ),
    Check(
        "store: no tree stands for a larger one",
        "common/io/flower_internals.py",
        "    if not is_consistent(tree, {}) or not",
        "    if not",
        "test_a_small_tree_that_stands_for_a_large_one_is_refused",
    ),
    Check(
        "store: known objects keep their children",
        "common/io/flower_internals.py",
        " or not _is_as_stored(tree, store):\n",
        ":\n",
        "test_an_object_that_is_there_already_stands_with_the_children_it_has",
    ),
    Check(
        "store: no reply under another's name",
        "common/io/flower_internals.py",
        "    if tree.object_id in store and not handed.has_begun(node, tree.object_id):\n",
        "    if False:\n",
        "test_no_reply_is_taken_under_the_name_of_anothers_message",
    ),
    Check(
        "store: replies to what was handed only",
        "common/io/flower_internals.py",
        "    if not handed.has_message(node, "
        "request.messages_list[0].metadata.reply_to_message_id):\n",
        "    if False:\n",
        "test_a_reply_to_a_message_that_the_node_was_not_handed_is_refused",
    ),
    Check(
        "room: how large a reply can be is said",
        "server/asking.py",
        "most + _HEAD_BYTES, hear, leaving)\n",
        "1 << 40, hear, leaving)\n",
        "test_a_reply_larger_than_any_is_refused_by_name_and_costs_nobody_else",
    ),
    Check(
        "room: a line by half is taken back",
        "common/io/journal.py",
        "            cut(DISK, path, before)\n",
        "            pass\n",
        "test_a_line_of_the_metrics_that_fits_by_half_is_taken_back",
    ),
    Check(
        "room: the metrics' lines have some",
        "server/coordinator.py",
        "            if not self._audit.give_way():\n                raise\n",
        "            raise\n",
        "test_a_refusal_that_comes_on_a_full_disk_costs_nobody_elses_update",
    ),
    Check(
        "room: a checkpoint has some",
        "server/run_dir.py",
        "                if room is None or not room.release():\n",
        "                if True:\n",
        "test_a_checkpoint_fits_into_the_room_that_was_held_for_it",
    ),
    Check(
        "room: a checkpoint's is held before vectors",
        "server/coordinator.py",
        "        room.hold()\n",
        "",
        "test_no_vector_is_asked_for_without_room_for_a_checkpoint",
    ),
    Check(
        "room: receipts are kept before vectors",
        "server/asking.py",
        "            self._book.keep()\n",
        "            pass\n",
        "test_no_vector_is_asked_for_while_receipts_wait_for_room",
    ),
    Check(
        "room: receipts that waited replace no newer",
        "server/receipts.py",
        " if not _is_beyond(known.get(n), r)}\n",
        "}\n",
        "test_what_waited_does_not_replace_what_another_study_has_seen_meanwhile",
    ),
)


def main(argv: list[str]) -> int:
    return remove_each((*CHECKS, *REFUSALS), _TESTS, argv, prog="scripts/bench secagg-mutations")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
