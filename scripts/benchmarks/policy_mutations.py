"""Removes each check of policy and audit log in a copy of the tree, and runs the test for it.

Of `common/policy`, sign-offs, `common/audit`, what stands at a site between data and what leaves
(`client/guard`, `client/consent`, `client/withdrawals`), both sides' logs (`client/audit`,
`server/audit`), and who is let in (`server/approvals`).

    scripts/bench policy-mutations [--only WORD] [--part I/N]

As `scripts/bench secagg-mutations`, whose runner it shares.
"""

import sys

from scripts.benchmarks._mutations import Check, remove_each

_TESTS = (
    "tests/unit/test_policy.py",
    "tests/unit/test_policy_fields.py",
    "tests/unit/test_audit_log.py",
    "tests/unit/test_audit_repeats.py",
    "tests/unit/test_site_audit.py",
    "tests/unit/test_coordinator_audit.py",
    "tests/unit/test_approvals.py",
    "tests/unit/test_guard.py",
    "tests/golden/test_study_hash.py",
    "tests/integration/test_ledger_file.py",
    "tests/integration/test_vault.py",
    "tests/integration/test_log_cli.py",
    "tests/integration/test_audited_session.py",
    "tests/integration/test_private_session.py",
    "tests/integration/test_withdrawals.py",
    "tests/integration/test_gate_revoked.py",
)


def _in(file: str, *checks: tuple[str, str, str, str]) -> tuple[Check, ...]:
    """Checks of one file: name, text, what it becomes, test."""
    return tuple(Check(name, file, text, without, test) for name, text, without, test in checks)


_FIELDS = "test_a_field_refuses_exactly_what_is_weaker_than_it"

POLICY = _in(
    "common/policy/decision.py",
    (
        "who is on the study's roster",
        "    if institution not in study.federation.institutions:\n",
        "    if False:\n",
        "test_an_institution_off_the_roster_takes_no_part",
    ),
    (
        "the pinned study",
        "    if policy.studies is not None and found not in policy.studies:\n",
        "    if False:\n",
        "test_a_pinned_study_is_the_only_one_allowed",
    ),
    (
        "one user for relay and worker",
        '    if facts.users == "one" and not policy.accept_one_user:\n',
        "    if False:\n",
        "test_one_user_for_relay_and_worker_is_refused_unless_accepted",
    ),
    (
        "the pinned code",
        "    if policy.code_sha256 is not None and facts.code_sha256 != policy.code_sha256:\n",
        "    if False:\n",
        "test_only_the_pinned_code_takes_part",
    ),
    (
        "code that nobody knows is not the pinned",
        "facts.code_sha256 != policy.code_sha256:\n",
        "facts.code_sha256 not in {None, policy.code_sha256}:\n",
        "test_only_the_pinned_code_takes_part",
    ),
    (
        "tasks",
        "    if study.task.kind not in policy.tasks:\n",
        "    if False:\n",
        "test_a_task_that_the_site_does_not_name_is_refused",
    ),
    (
        "labels",
        "    if more:\n        yield no(\n            Code.LABELS",
        "    if False:\n        yield no(\n            Code.LABELS",
        _FIELDS,
    ),
    (
        "rounds",
        "    if policy.max_rounds is not None and study.training.rounds > policy.max_rounds:\n",
        "    if False:\n",
        _FIELDS,
    ),
    (
        "hours",
        "    if facts.now is None or not any(window.holds(facts.now) for window in "
        "policy.hours):\n",
        "    if False:\n",
        "test_a_window_begins_with_its_start_and_is_over_at_its_end",
    ),
    (
        "no clock, no hour",
        "    if facts.now is None or not any(",
        "    if facts.now is not None and not any(",
        "test_without_a_clock_no_hour_is_open",
    ),
    (
        "hours bind what touches data alone",
        "    if not policy.hours or facts.asked not in WORK:\n",
        "    if not policy.hours:\n",
        "test_greetings_and_later_stages_of_a_sum_know_no_hours",
    ),
    (
        "every sign-off",
        "        if any(one.covers(role, key, found, roster) for one in facts.sign_offs):\n",
        "        if facts.sign_offs:\n",
        "test_a_study_needs_every_sign_off_that_the_policy_names",
    ),
    (
        "sign-offs under the pinned roster",
        "    found, roster = study_hash(study), policy.roster_sha256 or NO_ROSTER\n",
        "    found, roster = study_hash(study), NO_ROSTER\n",
        "test_a_sign_off_of_another_study_or_roster_counts_for_nothing",
    ),
    (
        "a list of the withdrawn that can't be read",
        "    if facts.exclude_problem:\n",
        "    if False:\n",
        "test_a_list_of_the_withdrawn_that_can_not_be_read_refuses",
    ),
    (
        "withdrawn ids that nobody knows",
        "    if facts.exclude_unknown and not policy.accept_unknown_exclusions:\n",
        "    if False:\n",
        "test_ids_that_nobody_knows_refuse_unless_accepted",
    ),
    (
        "no secure aggregation",
        "        if not policy.accept_secure_aggregation_none:\n",
        "        if False:\n",
        "test_each_missing_protection_is_refused_by_itself",
    ),
    (
        "a trusted coordinator",
        '    if section.adversary == "semi_honest" and not policy.accept_semi_honest:\n',
        "    if False:\n",
        "test_a_trusted_coordinator_is_allowed_only_in_so_many_words",
    ),
    (
        "the least cohort",
        "    if (section.min_cohort or 0) < policy.min_cohort:\n",
        "    if False:\n",
        "test_a_smaller_cohort_than_the_sites_minimum_is_refused",
    ),
    (
        "a pinned roster",
        "    if policy.roster_sha256 is None:\n        yield no(\n            Code.ROSTER",
        "    if False:\n        yield no(\n            Code.ROSTER",
        "test_secure_aggregation_without_a_pinned_roster_is_refused",
    ),
    (
        "the pinned roster",
        "    elif section.roster_sha256 not in {None, policy.roster_sha256}:\n",
        "    elif False:\n",
        "test_a_study_for_another_roster_is_refused_with_both_hashes",
    ),
) + _in(
    "common/policy/terms.py",
    (
        "evaluation touches data",
        'WORK: frozenset[Asked] = frozenset({"train", "evaluate"})\n',
        'WORK: frozenset[Asked] = frozenset({"train"})\n',
        "test_a_window_begins_with_its_start_and_is_over_at_its_end",
    ),
    (
        "a moment has a time zone",
        "        if self.now is not None and self.now.tzinfo is None:\n",
        "        if False:\n",
        "test_a_moment_counts_in_utc_whatever_its_zone",
    ),
    (
        "one refusal is enough",
        "        return not self.refusals\n",
        "        return len(self.refusals) < 2\n",
        "test_a_finer_unit_than_the_sites_minimum_is_refused",
    ),
)

PRIVACY = _in(
    "common/policy/privacy.py",
    (
        "no mechanism",
        "    if not policy.accept_privacy_none:\n",
        "    if False:\n",
        "test_each_missing_protection_is_refused_by_itself",
    ),
    (
        "no mechanism beside a budget",
        "    elif policy.budget:\n",
        "    elif False:\n",
        "test_a_site_with_a_budget_takes_no_study_without_privacy",
    ),
    (
        "no mechanism beside a least noise",
        "    elif policy.min_noise_multiplier is not None:\n",
        "    elif False:\n",
        "test_a_site_with_a_least_noise_takes_no_study_without_any",
    ),
    (
        "the least unit",
        "    if _finer(privacy.unit, policy.minimum_unit):\n",
        "    if False:\n",
        "test_a_finer_unit_than_the_sites_minimum_is_refused",
    ),
    (
        "exact evaluation",
        '    if privacy.evaluation == "exact" and not policy.accept_exact_evaluation:\n',
        "    if False:\n",
        "test_exact_evaluation_beside_privacy_is_allowed_only_in_so_many_words",
    ),
    (
        "insecure seeds",
        "    if privacy.insecure_seed is not None and not policy.accept_insecure_seed:\n",
        "    if False:\n",
        "test_an_insecure_seed_is_allowed_only_in_so_many_words",
    ),
    (
        "no insecure seed beside a least noise",
        "    if privacy.insecure_seed is not None and policy.min_noise_multiplier is not None:\n",
        "    if False:\n",
        "test_a_site_with_a_least_noise_takes_no_counts_without_and_no_seed_that_takes_it_off",
    ),
    (
        "no insecure seed beside a budget",
        "    if privacy.insecure_seed is not None and policy.budget:\n",
        "    if False:\n",
        "test_an_insecure_seed_beside_a_budget_is_refused",
    ),
    (
        "a cap on a coarser unit",
        "    coarser = [b.unit for b in policy.budget if _finer(unit, b.unit)]\n",
        "    coarser: list[Unit] = []\n",
        "test_a_cap_on_a_coarser_unit_refuses_beside_one_on_the_studys_own",
    ),
    (
        "a cap on the study's unit",
        "    if policy.budget and not coarser and all(b.unit != unit for b in policy.budget):\n",
        "    if False:\n",
        "test_only_a_cap_on_the_studys_own_unit_lets_it_pass",
    ),
    (
        "the least noise of updates",
        '    found = {"updates": plan.mechanism.noise_multiplier, "counts": counts}\n',
        '    found = {"updates": least, "counts": counts}\n',
        _FIELDS,
    ),
    (
        "the least noise of counts",
        '    found = {"updates": plan.mechanism.noise_multiplier, "counts": counts}\n',
        '    found = {"updates": plan.mechanism.noise_multiplier}\n',
        "test_the_least_noise_holds_for_counts_as_well",
    ),
    (
        "exact counts have no noise",
        "    counts = 0.0 if plan.counts is None else plan.counts.noise_multiplier\n",
        "    counts = least if plan.counts is None else plan.counts.noise_multiplier\n",
        "test_a_site_with_a_least_noise_takes_no_counts_without_and_no_seed_that_takes_it_off",
    ),
    (
        "the cap on a study",
        "    if not epsilon <= cap:\n",
        "    if False:\n",
        "test_a_study_that_costs_more_than_the_cap_is_refused_with_the_figures",
    ),
    (
        "the cap is at its own delta",
        "    epsilon = plan.epsilon_with_search(budget.delta)\n",
        "    epsilon = plan.epsilon_with_search(plan.delta)\n",
        "test_the_cap_is_read_at_its_own_delta",
    ),
    (
        "the search counts",
        "    epsilon = plan.epsilon_with_search(budget.delta)\n",
        "    epsilon = plan.epsilon\n",
        "test_the_cap_counts_the_search_for_settings",
    ),
    (
        "a cost that is not to be found",
        "        yield no(Code.BUDGET, f\"the study's epsilon can't be found: {error.message}\")\n",
        "        del error\n",
        "test_a_study_whose_cost_is_not_to_be_found_is_refused",
    ),
    (
        "the cap on a lifetime",
        "        if cap is not None and not spent <= cap:\n",
        "        if False:\n",
        "test_a_lifetime_that_is_overspent_refuses_and_one_that_is_full_does_not",
    ),
    (
        "spend that is no number",
        "        if cap is not None and not spent <= cap:\n",
        "        if cap is not None and spent > cap:\n",
        "test_a_lifetime_that_is_overspent_refuses_and_one_that_is_full_does_not",
    ),
    (
        "a stranger has no plan",
        "    if institution in study.federation.institutions:\n",
        "    if True:\n",
        "test_a_stranger_to_a_study_with_privacy_is_told_so",
    ),
)

SIGN_OFFS = _in(
    "common/identity/sign_off.py",
    (
        "a sign-off is of this role, key, study and roster",
        "        return told == (role, public_key, study, roster) and verify(\n",
        "        return bool(told) and verify(\n",
        "test_a_sign_off_in_anothers_role_or_with_anothers_key_counts_for_nothing",
    ),
    (
        "a sign-off is signed",
        "        return told == (role, public_key, study, roster) and verify(\n"
        "            public_key, _LABEL, message, self.signature\n        )\n",
        "        return told == (role, public_key, study, roster)\n",
        "test_a_sign_off_in_anothers_role_or_with_anothers_key_counts_for_nothing",
    ),
    (
        "the signature covers the roster",
        '    content = {"role": role, "study": study, "roster": roster}\n',
        '    content = {"role": role, "study": study}\n',
        "test_a_sign_off_of_something_else_that_was_rewritten_counts_for_nothing",
    ),
    (
        "the signature covers the study",
        '    content = {"role": role, "study": study, "roster": roster}\n',
        '    content = {"role": role, "roster": roster}\n',
        "test_a_sign_off_of_something_else_that_was_rewritten_counts_for_nothing",
    ),
    (
        "the signature covers the role",
        '    content = {"role": role, "study": study, "roster": roster}\n',
        '    content = {"study": study, "roster": roster}\n',
        "test_a_sign_off_of_something_else_that_was_rewritten_counts_for_nothing",
    ),
)

_FORM = "test_a_line_in_any_other_form_is_malformed"
_NOTED = "test_a_clock_that_was_set_back_and_a_killed_process_are_noted"

LOG = _in(
    "common/audit/chain.py",
    (
        "numbers follow each other",
        "        if entry.seq != self.seq + 1:\n",
        "        if False:\n",
        "test_a_wrong_number_is_found_though_the_rest_is_right",
    ),
    (
        "each line names the one before",
        "        if entry.prev != self.hash:\n",
        "        if False:\n",
        "test_reading_goes_on_after_a_broken_line",
    ),
    (
        "open stands first and only there",
        "        if isinstance(entry.body, Open) != (self.seq == 0):\n",
        "        if False:\n",
        "test_open_stands_first_and_only_there",
    ),
    (
        "no signature without a key",
        '            return "is signed, and no key stands for it" if entry.signature else ""\n',
        '            return ""\n',
        "test_an_unsigned_log_is_whole_and_yet_signed_by_nobody",
    ),
    (
        "a missing signature is said",
        "        if not entry.signature:\n",
        "        if False:\n",
        "test_a_line_put_in_by_someone_without_the_key_is_found",
    ),
    (
        "signatures are right",
        '        return "" if entry.is_signed_by(key) else "has a wrong signature"\n',
        '        return ""\n',
        "test_a_line_put_in_by_someone_without_the_key_is_found",
    ),
    (
        "the key of a start stands",
        "        return body.public_key if isinstance(body, Open | Start) else self.key\n",
        "        return body.public_key if isinstance(body, Open) else self.key\n",
        "test_a_change_of_keys_is_noted_and_the_new_key_must_sign",
    ),
    (
        "another key is noted",
        "        if key != self.key and self.seq:\n",
        "        if False:\n",
        "test_a_change_of_keys_is_noted_and_the_new_key_must_sign",
    ),
    ("a clock that was set back is noted", "        if entry.time < self.time:\n",
     "        if False:\n", _NOTED),
    ("a process that ended without a word is noted",
     "        if isinstance(entry.body, Start) and self.running:\n", "        if False:\n", _NOTED),
    (
        "a process that said its end is not noted",
        "(self.running and not isinstance(body, Stop)),\n",
        "self.running,\n",
        "test_a_process_that_said_its_end_is_followed_by_another_without_a_note",
    ),
) + _in(
    "common/audit/codec.py",
    ("the keys of an entry", '    if set(raw) != _KEYS or raw["kind"] not in KINDS:\n',
     '    if raw["kind"] not in KINDS:\n', _FORM),
    ("known kinds", '    if set(raw) != _KEYS or raw["kind"] not in KINDS:\n',
     "    if set(raw) != _KEYS:\n", _FORM),
    ("whole numbers", 'type(raw["seq"]) is type(raw["time"]) is int and 0 <=', "0 <=", _FORM),
    ("times of this era", 'is int and 0 <= raw["time"] < MAX_TIME)', "is int)", _FORM),
    ("the form of a signature", '    if not _SIGNATURE.fullmatch(str(raw["signature"])):\n',
     "    if False:\n", _FORM),
    ("canonical bytes", "    if not isinstance(raw, dict) or as_written != line:\n",
     "    if not isinstance(raw, dict):\n", _FORM),
    (
        "content of its kind",
        "        found: Body = _SCHEMAS[kind].validate_json(json.dumps(body))\n",
        "        found: Body = KINDS[kind](**body)\n"
        "    except TypeError:\n        found = body\n",
        _FORM,
    ),
    (
        "the chain has its label",
        '    return hashlib.sha256(CHAIN_LABEL + b"\\n" + line).hexdigest()\n',
        "    return hashlib.sha256(line).hexdigest()\n",
        "test_the_chain_is_under_a_label_of_its_own",
    ),
    (
        "entries are signed under a label of their own",
        'ENTRY_LABEL: Final = b"fedner audit entry v1"\n',
        "from common.privacy.ledger_codec import ENTRY_LABEL\n",
        "test_an_entry_is_signed_under_a_label_of_its_own",
    ),
    (
        "a head has one form",
        "        found = _HEAD.fullmatch(text)\n",
        "        found = _HEAD.match(text)\n",
        "test_a_head_reads_back_from_text_and_nothing_else_is_one",
    ),
) + _in(
    "common/audit/examine.py",
    (
        "signed by a known key",
        "before.wrong(entry) or _not_by(self.chain, keys))\n",
        "before.wrong(entry))\n",
        "test_a_log_of_another_key_is_found_by_who_knows_the_right_one",
    ),
    (
        "signed by nobody is not by a known key",
        "    if not keys or chain.key in keys:\n",
        "    if not keys or chain.key in (None, *keys):\n",
        "test_an_unsigned_log_is_whole_and_yet_signed_by_nobody",
    ),
    (
        "lines that are none are said",
        '            self._say(self.broken, f"is no entry: {entry}")\n',
        "",
        "test_reading_goes_on_after_a_broken_line",
    ),
    (
        "a head of another log",
        "        if opened is None or opened.log != head.log:\n",
        "        if opened is None:\n",
        "test_another_history_or_another_log_is_found_by_a_head_from_elsewhere",
    ),
    (
        "a head beyond an empty log",
        "        if opened is None or opened.log != head.log:\n",
        "        if opened is not None and opened.log != head.log:\n",
        "test_each_cut_tail_is_found_by_a_head_from_elsewhere_and_by_nothing_else",
    ),
    (
        "a head beyond the end",
        "        elif head.seq > len(hashes):\n",
        "        elif head.seq > len(hashes) + 9999:\n",
        "test_each_cut_tail_is_found_by_a_head_from_elsewhere_and_by_nothing_else",
    ),
    (
        "a head of another history",
        "        elif hashes[head.seq - 1] != head.hash:\n",
        "        elif False:\n",
        "test_another_history_or_another_log_is_found_by_a_head_from_elsewhere",
    ),
    (
        "an unfinished end is a fault",
        "        if not self.unfinished:\n",
        "        if True:\n",
        "test_an_unfinished_end_is_told_apart_from_damage",
    ),
    (
        "an unfinished end is the last line alone",
        "    only_the_last = bad >= len(lines) - (not rest)\n",
        "    only_the_last = True\n",
        "test_lost_pages_are_what_a_crash_leaves_only_near_the_end",
    ),
    (
        "a damaged line before an unfinished one is no unfinished end",
        "    only_the_last = bad >= len(lines) - (not rest)\n",
        "    only_the_last = bad >= len(lines) - 1\n",
        "test_a_damaged_line_before_an_unfinished_one_is_damage",
    ),
    (
        "lost pages are zeros",
        '    lost_pages = b"\\0" in end and len(end) <= MAX_UNFINISHED\n',
        "    lost_pages = len(end) <= MAX_UNFINISHED\n",
        "test_lost_pages_are_what_a_crash_leaves_only_near_the_end",
    ),
    (
        "lost pages are few",
        '    lost_pages = b"\\0" in end and len(end) <= MAX_UNFINISHED\n',
        '    lost_pages = b"\\0" in end\n',
        "test_lost_pages_are_what_a_crash_leaves_only_near_the_end",
    ),
)  # fmt: skip

_HOSTILE = "test_no_field_but_reasons_takes_anything_but_its_own_kind_of_value"
_WORDS = "test_words_of_an_error_are_made_fit_for_an_entry_whatever_they_are"

CONTENT = _in(
    "common/audit/entries.py",
    ("names", "Name = Annotated[str, Field(pattern=NAME_PATTERN)]\n", "Name = str\n", _HOSTILE),
    ("versions", "Version = Annotated[str, Field(pattern=r\"^[0-9]{1,4}"
     '(\\.[0-9a-z+-]{1,20}){1,5}$")]\n', "Version = str\n", _HOSTILE),
    ("codes", 'Code = Annotated[str, Field(pattern=r"^([a-z][a-z0-9-]{0,40})?$")]\n',
     "Code = str\n", _HOSTILE),
    ("error classes", 'ErrorName = Annotated[str, Field(pattern=rf"^({ERROR_NAME})?$")]\n',
     "ErrorName = str\n", _HOSTILE),
    ("numbers of logs", 'LogId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]\n',
     "LogId = str\n", _HOSTILE),
    ("torn files", 'TornFile = Annotated[str, Field(pattern=r"^audit\\.torn-[1-9][0-9]{0,8}$")]\n',
     "TornFile = str\n", _HOSTILE),
    ("heads of ledgers", 'LedgerHead = Annotated[str, Field(pattern=rf"^{LEDGER_PATTERN}$")]\n',
     "LedgerHead = str\n", _HOSTILE),
    ("reasons are printable ASCII", 'Field(pattern=r"^[ -~]+$", max_length=MAX_REASON)]\n',
     "Field(max_length=MAX_REASON)]\n", "test_a_reason_is_printable_ascii_of_limited_length"),
    ("reasons are short", 'Field(pattern=r"^[ -~]+$", max_length=MAX_REASON)]\n',
     'Field(pattern=r"^[ -~]+$")]\n', "test_a_reason_is_printable_ascii_of_limited_length"),
    ("reasons are few", "Field(max_length=MAX_REASONS)]\n", "Field()]\n",
     "test_a_reason_is_printable_ascii_of_limited_length"),
) + _in(
    "common/audit/words.py",
    (
        "words of errors about policy and protocol alone",
        "    if not isinstance(error, _SAYABLE):\n",
        "    if False:\n",
        "test_what_is_said_of_an_error_is_its_own_words_only_if_it_is_about_policy_or_protocol",
    ),
    (
        "classes that read like one",
        '    return name if re.fullmatch(ERROR_NAME, name) else "Exception"\n',
        "    return name\n",
        "test_the_class_of_an_error_is_said_only_if_it_reads_like_one",
    ),
    ("words are printable ASCII", '    clean = (re.sub(r"[^ -~]", "?", text) for text in texts)\n',
     "    clean = iter(texts)\n", _WORDS),
    ("words are few", "for text in clean if text)[:MAX_REASONS]\n", "for text in clean if text)\n",
     _WORDS),
    ("words are short", "tuple(_cut(text) for", "tuple(str(text) for", _WORDS),
    (
        "one reason for each line",
        '    return sayable(f"{name_of(error)}: {line}" for line in error.message.splitlines())\n',
        '    return sayable([f"{name_of(error)}: {error.message}"])\n',
        "test_each_reason_of_a_refused_start_is_one_of_its_own_and_none_cuts_another",
    ),
    (
        "a digest is of the whole header",
        "    end: int = _PREFIX_BYTES + length\n",
        "    end: int = _PREFIX_BYTES\n",
        "test_the_digest_of_a_message_changes_with_every_byte_of_it",
    ),
    (
        "a digest of other bytes is of all",
        "    if len(message) < _PREFIX_BYTES or message[: len(MAGIC)] != MAGIC:\n",
        "    if len(message) < _PREFIX_BYTES:\n",
        "test_the_digest_of_a_message_changes_with_every_byte_of_it",
    ),
) + _in(
    "common/audit/choices.py",
    ("privacy none is said", '        yield "privacy-none"\n', "        yield from ()\n",
     "test_what_the_study_and_the_run_do_without_is_there"),
    ("secure aggregation none is said", '        yield "secure-aggregation-none"\n',
     "        yield from ()\n", "test_what_the_study_and_the_run_do_without_is_there"),
    ("exact evaluation is said", '        yield "exact-evaluation"\n', "        yield from ()\n",
     "test_each_weakness_of_a_study_is_said"),
    ("an insecure seed is said", '        yield "insecure-seed"\n', "        yield from ()\n",
     "test_each_weakness_of_a_study_is_said"),
    ("a trusted coordinator is said", '        yield "semi-honest"\n', "        yield from ()\n",
     "test_each_weakness_of_a_study_is_said"),
) + _in(
    "common/audit/repeats.py",
    (
        "repeats are counted, not written",
        "        if window.written < LIMIT or not now < window.until:\n",
        "        if True:\n",
        "test_refusals_that_repeat_are_counted_and_do_not_fill_the_disk",
    ),
    (
        "the first few are written",
        "        if window.written < LIMIT or not now < window.until:\n",
        "        if not now < window.until:\n",
        "test_refusals_that_repeat_are_counted_and_do_not_fill_the_disk",
    ),
    (
        "a window ends",
        "        if window.written < LIMIT or not now < window.until:\n",
        "        if window.written < LIMIT:\n",
        "test_a_window_that_is_over_counts_nothing_more",
    ),
    (
        "codes are counted apart",
        "        window = self._windows.setdefault((asked, code), _Window(until=now + WINDOW_S))\n",
        "        code = next((c for a, c in self._windows if a == asked), code)\n"
        "        window = self._windows.setdefault((asked, code), _Window(until=now + WINDOW_S))\n",
        "test_codes_and_kinds_are_counted_each_by_itself",
    ),
    (
        "counts are said when a window is over",
        "        return [Repeated(entry=one.entry, count=one.more) for one in self.ended(now)]\n",
        "        return []\n",
        "test_refusals_that_repeat_are_counted_and_do_not_fill_the_disk",
    ),
    (
        "windows that run are kept",
        "if now is None or not now < w.until]\n",
        "]\n",
        "test_refusals_that_repeat_are_counted_and_do_not_fill_the_disk",
    ),
) + _in(
    "common/audit/report.py",
    (
        "a reply that the site's log lacks",
        "        if reply.sha256 not in given:\n",
        "        if False:\n",
        "test_a_sites_cut_end_shows_against_the_coordinators_log",
    ),
    (
        "a request that the coordinator's log lacks",
        "        if met and not known:\n",
        "        if False:\n",
        "test_a_coordinators_cut_end_shows_against_a_sites_log",
    ),
    (
        "what came before the run is not lacking",
        "        if met and not known:\n",
        "        if not known:\n",
        "test_what_a_site_did_in_another_study_or_before_this_run_shows_nothing",
    ),
    (
        "another study is not lacking",
        "body.study in studies and body.asked",
        "body.asked",
        "test_what_a_site_did_in_another_study_or_before_this_run_shows_nothing",
    ),
    (
        "one institution's replies",
        "isinstance(body, Reply) and body.institution == name and _is_work(body):\n",
        "isinstance(body, Reply) and _is_work(body):\n",
        "test_two_sides_logs_bear_each_other_out",
    ),
)  # fmt: skip

_ONCE = "test_each_reserve_of_the_ledger_is_there_once_before_its_reply"

SITE = _in(
    "client/audit.py",
    (
        "a request is in the log before work",
        "            self._write(self._request(now))\n            now.logged = True\n",
        "            pass\n",
        "test_work_is_in_the_log_before_it_is_done_and_its_reply_before_it_leaves",
    ),
    (
        "a greeting is there with its answer",
        '        if now.asked != "hello":\n',
        "        if True:\n",
        "test_a_greeting_is_written_with_its_answer_and_not_before",
    ),
    (
        "a reply that is not logged does not leave",
        "                return self._cannot(now)\n",
        "                pass\n",
        "test_a_reply_that_cannot_be_logged_does_not_leave_and_leaves_once_it_can",
    ),
    (
        "a study that is no hash",
        "        now.study = request.study if is_hash(request.study) else None\n",
        "        now.study = request.study\n",
        "test_a_study_that_is_no_hash_is_not_copied_into_the_log",
    ),
    (
        "reasons of a refusal",
        "        now.reasons = sayable(why.splitlines())\n",
        "",
        "test_a_refusal_is_there_with_all_its_reasons",
    ),
    (
        "no ledger's head with a refusal",
        '            ledger="" if state is None or now.code else str(state.head),\n',
        '            ledger="" if state is None else str(state.head),\n',
        "test_a_refusal_has_no_head_of_the_ledger",
    ),
    (
        "spend is there",
        "*request, *self._new_spends(state), said)\n",
        "*request, said)\n",
        _ONCE,
    ),
    (
        "spend is there before its reply",
        "*request, *self._new_spends(state), said)\n",
        "*request, said, *self._new_spends(state))\n",
        _ONCE,
    ),
    (
        "spend is there once",
        "        for number in sorted(n for n in state.reserves if n > known):\n",
        "        for number in sorted(state.reserves):\n",
        _ONCE,
    ),
    (
        "spend of a new ledger from its beginning",
        "        known = last.reserve if last and last.ledger == state.opened.ledger else 0\n",
        "        known = last.reserve if last else 0\n",
        "test_a_ledger_that_follows_a_lost_one_is_told_from_its_beginning",
    ),
    (
        "work is never only counted",
        "        if not now.logged and self._repeats.is_one_more(",
        "        if self._repeats.is_one_more(",
        "test_other_refusals_and_all_work_are_written_beside_what_repeats",
    ),
    (
        "what repeats is said at the end",
        "        self._write(*self._repeats.over(), _stop(error))\n",
        "        self._write(_stop(error))\n",
        "test_greetings_that_repeat_are_counted_too_and_all_is_said_at_the_end",
    ),
    (
        "a session answers through its log",
        "        if self._now is None:\n",
        "        if False:\n",
        "test_a_session_that_answers_elsewhere_is_not_watched",
    ),
    (
        "the log's reply is of the site's study",
        "            kind=now.asked, study=self._study, round=now.round, institution=self._name,\n",
        '            kind=now.asked, study="", round=now.round, institution=self._name,\n',
        "test_a_reply_that_cannot_be_logged_does_not_leave_and_leaves_once_it_can",
    ),
    (
        "the site's identity signs",
        "        signer=_signer(site, base),\n",
        "        signer=None,\n",
        "test_both_sides_logs_of_a_secure_study_are_whole_and_signed_by_their_identities",
    ),
    (
        "one user is said",
        '        yield "one-user"\n',
        "        yield from ()\n",
        "test_what_each_side_does_without_is_said_and_nothing_else",
    ),
    (
        "no TLS is said",
        '        yield "no-tls"\n',
        "        yield from ()\n",
        "test_what_each_side_does_without_is_said_and_nothing_else",
    ),
    (
        "the end is there",
        "        audit.stop(None)\n",
        "        pass\n",
        "test_a_site_says_how_its_worker_ended",
    ),
    (
        "an end by an error is there",
        "        _stop_anyhow(audit, error)\n",
        "        pass\n",
        "test_a_site_says_how_its_worker_ended",
    ),
    (
        "an interrupted process was stopped",
        "    if isinstance(error, KeyboardInterrupt | SystemExit):\n",
        "    if False:\n",
        "test_the_end_is_there_with_its_reason_but_no_text_of_data",
    ),
)

_LISTED = "test_a_list_that_can_not_be_read_refuses_the_round_and_costs_nothing"
_NEXT = "test_a_patient_who_withdraws_is_out_from_the_next_round_without_a_restart"
_KEPT = "test_what_is_kept_is_what_would_have_been_prepared_without_the_rest"

CONSENT = _in(
    "client/consent.py",
    ("the policy's decision", "        if not decision.allowed:\n", "        if False:\n", _LISTED),
    (
        "who has withdrawn is read anew",
        "            facts, withdrawn = self._with_withdrawn(facts, self._read)\n",
        "            pass\n",
        _NEXT,
    ),
    ("who has withdrawn is taken out",
     "            raise Denied(Refusal.POLICY, str(decision))\n"
     "        if withdrawn is not None:\n",
     "            raise Denied(Refusal.POLICY, str(decision))\n        if False:\n", _NEXT),
    (
        "evaluation reads the list, too",
        "        if self._read is not None and asked in WORK:\n",
        '        if self._read is not None and asked == "train":\n',
        "test_an_evaluation_reads_the_list_by_itself",
    ),
    ("greetings read no list", "        if self._read is not None and asked in WORK:\n",
     "        if self._read is not None:\n", _LISTED),
    ("a list that can't be read", "exclude_problem=str(error)), None\n",
     'exclude_problem=""), None\n', _LISTED),
    (
        "ids that nobody has",
        "exclude_unknown=self._work.unknown(withdrawn)), withdrawn\n",
        "exclude_unknown=0), withdrawn\n",
        "test_an_id_that_nobody_has_refuses_the_round_until_it_is_accepted",
    ),
    (
        "the list is read at the start",
        "            self._begin(read_withdrawn())\n",
        "            pass\n",
        "test_without_its_list_a_session_does_not_begin",
    ),
) + _in(
    "client/withdrawals.py",
    (
        "documents are taken out",
        "if not withdrawn.covers(d)]\n",
        "]\n",
        "test_updates_and_counts_are_those_of_the_data_without_who_has_withdrawn",
    ),
    ("windows are taken out",
     "            replace(w, document=place[w.document]) for w in prepared.windows "
     "if w.document in place\n",
     "            replace(w, document=place.get(w.document, 0)) for w in prepared.windows\n",
     _KEPT),
    ("windows keep their documents",
     "replace(w, document=place[w.document]) for w in", "w for w in", _KEPT),
    ("tags are taken out", "        tags=tuple(prepared.tags[i] for i in kept),\n", "", _KEPT),
)  # fmt: skip

GUARD = _in(
    "client/guard.py",
    (
        "the site's caps",
        "        self._caps = caps_of(policy.budget)\n",
        "        self._caps = ()\n",
        "test_an_institution_halts_at_its_budget_with_the_figures",
    ),
    (
        "receipts are heard",
        "        if receipt is not None:\n",
        "        if False:\n",
        "test_a_restored_old_copy_is_refused_by_what_the_coordinator_has_seen",
    ),
    (
        "the pinned coordinator's receipts",
        "counterpart=policy.coordinator_key)\n",
        "counterpart=None)\n",
        "test_another_coordinators_receipt_than_the_pinned_one_is_refused",
    ),
    (
        "a receipt has its keys",
        "        return Receipt(**content)\n",
        "        names = Receipt.__dataclass_fields__\n"
        "        return Receipt(**{k: v for k, v in content.items() if k in names})\n",
        "test_a_receipt_with_a_key_too_many_is_malformed",
    ),
    (
        "the search is charged",
        "        first = self._charge_search\n",
        "        first = lambda: None\n",
        "test_a_declared_search_is_charged_once_before_the_first_round",
    ),
    (
        "the search is charged once",
        "        if not self._ledger.attempts(charge):\n",
        "        if True:\n",
        "test_a_declared_search_is_charged_once_before_the_first_round",
    ),
    (
        "exact counts are not for here",
        "        if event is None:\n",
        "        event = event or self.plan.training_event\n        if False:\n",
        "test_exact_counts_are_not_the_guards",
    ),
    (
        "noise is fresh",
        "        seed = Seed(self._random(32), insecure=False) if number is None",
        "        seed = Seed(bytes(32), insecure=False) if number is None",
        "test_noise_is_never_drawn_twice",
    ),
    (
        "an insecure seed says so",
        "        if seed.insecure:\n",
        "        if False:\n",
        "test_an_insecure_seed_repeats_its_noise_and_says_so",
    ),
    (
        "each attempt has noise of its own",
        "/{round_}/{reserved.body.attempt}",
        "/{round_}",
        "test_with_an_insecure_seed_each_use_has_noise_of_its_own",
    ),
    (
        "each round has noise of its own",
        'f"{purpose}/{round_}/',
        'f"{purpose}/',
        "test_with_an_insecure_seed_each_use_has_noise_of_its_own",
    ),
    (
        "each purpose has noise of its own",
        'f"{purpose}/{round_}/',
        'f"{round_}/',
        "test_with_an_insecure_seed_each_use_has_noise_of_its_own",
    ),
    (
        "each institution has noise of its own",
        "{self._hash}/{self._institution}/{use}",
        "{self._hash}/{use}",
        "test_with_an_insecure_seed_each_use_has_noise_of_its_own",
    ),
    (
        "vectors of other studies are dropped",
        "        self._forget_others()\n",
        "",
        "test_vectors_of_another_study_are_dropped_and_this_ones_stay",
    ),
    (
        "vectors of this study stay",
        "for r in state.reserves.values() if r.body.study != self._hash}\n",
        "for r in state.reserves.values() if r.body.study == self._hash}\n",
        "test_vectors_of_another_study_are_dropped_and_this_ones_stay",
    ),
    (
        "the noise's own error is small",
        "        check_truncation(dimension, self.plan.noise_draws, self.plan.delta, "
        "self.plan.epsilon)\n",
        "",
        "test_a_study_whose_noise_is_too_coarse_for_its_delta_is_refused",
    ),
    (
        "a guard that can't be made gives its lock back",
        "    except BaseException:\n        ledger.close()\n",
        "    except BaseException:\n",
        "test_a_guard_that_can_not_be_made_gives_its_lock_back",
    ),
)

_ROOM = "test_a_vector_that_would_not_fit_is_not_charged_and_comes_when_there_is_room"
_FILLED = "test_a_disk_that_others_fill_during_the_work_costs_no_vector"
_MENDED = "test_a_ledger_takes_nothing_while_the_disk_fails_and_goes_on_by_itself_after"
_MOMENT = "test_a_site_whose_disk_was_full_for_a_moment_goes_on_without_a_restart"
_UNUSED = "test_a_reserve_that_was_written_and_not_acknowledged_is_used_once_and_by_its_own_charge"
_FITTING = "test_the_outlook_counts_the_rounds_that_still_fit"

STORAGE = (
    *_in(
        "common/io/release.py",
        ("room is taken first", "    with vault.room(size):\n", "    if True:\n", _ROOM),
        (
            "a search is charged once there is room",
            "        before()\n",
            "        pass\n",
            "test_a_search_is_not_charged_where_there_is_no_room_for_the_first_vector",
        ),
    ),
    *_in(
        "common/io/vault_room.py",
        (
            "there must be room for entries besides",
            "            self._disk.allocate(descriptor, size + ENTRIES_BYTES)\n",
            "            self._disk.allocate(descriptor, size)\n",
            _ROOM,
        ),
        (
            "the vector is written into its room",
            "        if not self._disk.exists(self._path):\n",
            "        if True:\n",
            _FILLED,
        ),
        (
            "room is given back",
            "                self._disk.remove(self._path)\n\n    def store",
            "                pass\n\n    def store",
            "test_room_is_given_back_when_no_vector_comes_about",
        ),
        (
            "a vector is as long as it was",
            "                size += len(part)\n"
            "            self._disk.truncate(descriptor, size)\n",
            "                size += len(part)\n",
            "test_a_vector_is_as_long_as_it_was_and_nothing_of_its_room_is_left",
        ),
        (
            "room is given up where the disk does not write in place",
            "            if error.errno not in _FULL:\n                raise\n            self",
            "            raise\n            self",
            "test_a_file_system_that_does_not_overwrite_in_place_still_gets_the_room",
        ),
    ),
    *_in(
        "common/io/ledger_file.py",
        (
            "a ledger goes on once the disk is mended",
            "        self._state, self._size, self._unsure = state, size, False\n",
            "        self._failed = True\n",
            _MENDED,
        ),
        (
            "what is on disk is read first",
            "        if self._unsure:\n",
            "        if False:\n",
            _MENDED,
        ),
        (
            "what was acknowledged is not forgotten",
            "means, found, before.opened.institution, os.urandom, before.head\n",
            "means, found, before.opened.institution, os.urandom, None\n",
            "test_a_ledger_that_lost_an_acknowledged_entry_during_a_fault_stays_refused",
        ),
        (
            "an unfinished end is noted",
            "        if note is not None:\n            self._append(note)\n        log",
            "        log",
            "test_an_end_that_a_fault_left_unfinished_is_moved_aside_without_a_restart",
        ),
        (
            "a reserve that nothing was computed for is used",
            "            self._unused = state.seq\n",
            "            self._unused = None\n",
            _MENDED,
        ),
        (
            "it is used once",
            "        self._unused = None\n        return found\n",
            "        return found\n",
            _UNUSED,
        ),
        (
            "it is used by its own charge",
            "        if found is None or charge != charge_of(found.body):\n",
            "        if found is None:\n",
            _UNUSED,
        ),
        (
            "attempts are those on disk",
            "        self._check_usable()\n        return self._state.attempts(",
            "        return self._state.attempts(",
            "test_a_commit_that_was_on_disk_all_the_same_is_not_asked_for_again",
        ),
    ),
    *_in(
        "client/session.py",
        (
            "a full disk is no full budget",
            "                return Refusal.STORAGE, str(error)\n",
            "                return Refusal.BUDGET, str(error)\n",
            _MOMENT,
        ),
        (
            "a refusal for the disk is not kept",
            "Refusal.BUDGET, Refusal.STORAGE, Refusal.SUMS,\n",
            "Refusal.BUDGET, Refusal.SUMS,\n",
            "test_a_refusal_that_depends_on_the_moment_is_not_kept",
        ),
    ),
    *_in(
        "common/privacy/outlook.py",
        (
            "a lost vector is charged anew",
            "        if is_kept(reserved):\n",
            "        if True:\n",
            _FITTING,
        ),
        (
            "rounds that are charged are over",
            "if r > newest or (r == newest and not trained)),\n",
            "if r >= newest),\n",
            _FITTING,
        ),
        (
            "the search counts for the caps",
            "        if rest.search:\n",
            "        if False:\n",
            "test_the_outlook_measures_the_caps_with_the_search",
        ),
    ),
    *_in(
        "common/privacy/plan.py",
        (
            "spare rounds are in the calibration",
            "(study.training.rounds + privacy.spare_rounds) * privacy.steps_per_round\n",
            "study.training.rounds * privacy.steps_per_round\n",
            "test_spare_rounds_carry_a_study_over_as_many_lost_vectors",
        ),
    ),
    *_in(
        "client/guard.py",
        (
            "a vector without its commit is no lost one",
            "self.state, self._caps, kept)",
            "self.state, self._caps)",
            "test_a_vector_whose_commit_a_crash_took_is_kept_and_costs_no_round",
        ),
        (
            "the start says what no longer fits",
            "        self._warn_of_what_no_longer_fits()\n",
            "",
            "test_a_lost_vector_leaves_the_last_round_without_budget_and_the_start_says_so",
        ),
    ),
    *_in(
        "common/config/canonical.py",
        (
            "studies without spare rounds keep their hash",
            "and not study.local_privacy.spare_rounds:\n",
            "and False:\n",
            "test_the_hash_of_a_fixed_study_with_privacy_is_this",
        ),
    ),
)

_EVERY = "test_every_line_of_the_metrics_that_an_auditor_asks_for_is_in_the_log"
_TOLD = "test_each_event_is_told_in_its_own_words"
_WITHOUT = "test_what_the_study_and_the_run_do_without_is_there"

COORDINATOR = _in(
    "server/audit.py",
    (
        "requests are in the log",
        "        study = study_hash(self._study)\n        self._append(\n",
        "        study = study_hash(self._study)\n        tuple(\n",
        "test_each_request_and_reply_is_there_with_its_size_and_its_digest",
    ),
    (
        "replies are in the log",
        'what of it is a reply."""\n        self._append(\n',
        'what of it is a reply."""\n        tuple(\n',
        "test_each_request_and_reply_is_there_with_its_size_and_its_digest",
    ),
    (
        "the code of a refusal",
        "                code=replies[name].refusal if name in replies else MALFORMED,\n",
        '                code="" if name in replies else MALFORMED,\n',
        "test_of_a_refusal_there_is_the_code_and_what_is_no_reply_is_named_so",
    ),
    (
        "what is no reply",
        "                code=replies[name].refusal if name in replies else MALFORMED,\n",
        '                code=replies[name].refusal if name in replies else "",\n',
        "test_of_a_refusal_there_is_the_code_and_what_is_no_reply_is_named_so",
    ),
    (
        "heads of the institutions' ledgers",
        '                ledger=replies[name].ledger if name in replies else "",\n',
        "",
        "test_the_head_of_an_institutions_ledger_is_there_with_its_reply",
    ),
    (
        "how the run ended",
        "            opened.append(_stop(error))\n",
        "            pass\n",
        "test_a_run_that_failed_says_so_and_one_that_goes_on_follows_it",
    ),
    (
        "what failed is not hidden by a log that fails, too",
        "            if error is None:\n                raise\n",
        "            raise\n",
        "test_an_end_that_can_not_be_logged_hides_no_error_and_is_no_success",
    ),
    (
        "an end that is not logged is no success",
        "            if error is None:\n                raise\n",
        "            pass\n",
        "test_an_end_that_can_not_be_logged_hides_no_error_and_is_no_success",
    ),
    (
        "a log that is not open",
        "        if self._log is None:\n",
        "        if False:\n",
        "test_a_log_that_is_not_open_takes_nothing",
    ),
    (
        "the coordinator's identity signs",
        "            signer=None if standing is None else standing.identity.signer,\n",
        "            signer=None,\n",
        "test_the_coordinators_identity_signs_where_there_is_one",
    ),
    (
        "the roster is named",
        "            roster=None if standing is None else standing.roster.sha256,\n",
        "            roster=None,\n",
        "test_the_coordinators_identity_signs_where_there_is_one",
    ),
    ("what the study does without", "        yield from choices_of(self._study)\n", "", _WITHOUT),
    ("one process is said", '            yield "one-process"\n', "            pass\n", _WITHOUT),
    ("no TLS is said there", '            yield "no-tls"\n', "            pass\n", _WITHOUT),
    (
        "demonstration keys are said",
        '            yield "demo-keys"\n',
        "            pass\n",
        "test_keys_that_one_machine_made_are_said",
    ),
    ("the beginning is told", '            yield Progress(what="begun", round=0)\n', "", _EVERY),
    (
        "rounds and evaluations are told",
        '        case "round" | "evaluation":\n',
        '        case "round":\n',
        _EVERY,
    ),
    (
        "promises are told",
        '        for name, said in figures.get("protection", {}).items():\n',
        "        for name, said in dict[str, Any]().items():\n",
        "test_each_site_has_its_spend_by_round_and_the_coordinator_what_was_promised",
    ),
    ("a resumed run is told", '        case "resume":\n', '        case "":\n', _TOLD),
    ("refusals are told", '        case "refusal":\n', '        case "":\n', _TOLD),
    ("whom a complaint accuses", '"round", "code", "accused")\n', '"round", "code")\n', _TOLD),
    ("attempts that ended are told", '        case "abort":\n', '        case "":\n', _TOLD),
    ("missing evaluations are told", '        case "evaluation_missing":\n', '        case "":\n',
     _TOLD),
    ("who is revoked is told", '        case "institution" if figures["state"] in _ENDED:\n',
     '        case "":\n', _TOLD),
    ("who joins is nothing for the log",
     '        case "institution" if figures["state"] in _ENDED:\n',
     '        case "institution":\n', _TOLD),
)  # fmt: skip

_GONE = "test_who_is_revoked_is_asked_no_more_and_named_once"
_DAMAGED = "test_a_damaged_register_lets_nobody_in_until_it_is_whole_again"

REVOKED = _in(
    "server/approvals.py",
    (
        "the gate looks at the register",
        "        if key_in(scope) not in self._keys:\n",
        "        if False:\n",
        "test_a_revoked_nodes_next_request_is_refused_and_the_others_pass",
    ),
    (
        "heads are signed, too",
        "        return await authenticated_node(self._app, scope)\n",
        "        return 1\n",
        "test_an_approved_key_that_flower_does_not_know_is_refused",
    ),
    (
        "keys are those of the register as it is now",
        "        if register is not self._of:\n",
        "        if self._of is None:\n",
        "test_a_revoked_nodes_next_request_is_refused_and_the_others_pass",
    ),
    ("no register, nobody", "            raise NodeRefusedError(503, _UNREADABLE)\n",
     "            return\n", _DAMAGED),
    (
        "a register that changed is read",
        "        if mark != self._mark or self._register is None:\n",
        "        if self._register is None:\n",
        "test_a_revoked_nodes_next_request_is_refused_and_the_others_pass",
    ),
    (
        "another file of the same length is another",
        "        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, "
        "found.st_ctime_ns\n",
        "        return found.st_dev, found.st_size\n",
        "test_a_register_in_the_others_place_counts_though_it_is_as_long",
    ),
    ("the coordinator leaves out who is revoked",
     "node for node in self._mail.online() if self._owners.get(node) not in self._told\n",
     "node for node in self._mail.online()\n", _GONE),
    ("who is revoked is named", "                self._on_ended(name, register.ended_as(name))\n",
     "", _GONE),
    ("who is revoked is named once",
     "        for name in set(self._owners.values()) - self._told:\n",
     "        for name in set(self._owners.values()):\n", _GONE),
    (
        "other keys than at the start",
        "        return name in begun and register.approved.get(name) == begun[name]\n",
        "        return name in begun and name in register.approved\n",
        "test_who_is_enrolled_with_other_keys_meanwhile_is_asked_no_more",
    ),
    (
        "nobody is there without a register",
        "        if register is None:\n            return frozenset()\n",
        "        if register is None:\n            return self._mail.online()\n",
        "test_while_the_register_is_damaged_nobody_is_there_and_then_all_are_again",
    ),
) + _in(
    "server/gate.py",
    (
        "the register is looked at again when the body is whole",
        "            self._require(scope)  # it may have been revoked meanwhile\n",
        "",
        "test_a_node_that_is_revoked_while_it_sends_a_body_gets_nothing_through",
    ),
    (
        "a gate has a register",
        "    if not (Path(folder) / REGISTER).is_file():\n",
        "    if False:\n",
        "test_a_gate_without_a_register_does_not_start",
    ),
)  # fmt: skip

CHECKS = (
    *POLICY, *PRIVACY, *SIGN_OFFS, *LOG, *CONTENT, *SITE, *CONSENT, *GUARD, *STORAGE, *COORDINATOR,
    *REVOKED,
)  # fmt: skip


def main(argv: list[str]) -> int:
    return remove_each(CHECKS, _TESTS, argv, prog="scripts/bench policy-mutations")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
