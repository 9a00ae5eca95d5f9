"""Rows of `secagg_mutations`: what is refused by parameters, codec and header, each by one `if`."""

from scripts.benchmarks._mutations import Check

_SESSION = "client/session.py"
_STALE = "test_a_round_outside_the_study_is_refused"


def _without(name: str, file: str, condition: str, test: str) -> Check:
    """The condition never holds."""
    return Check(name, file, f"if {condition}:\n", "if False:\n", test)


REFUSALS = (
    _without(
        "one spelling of a public key", "keys.py", 'int.from_bytes(public, "little") >= _FIELD',
        "test_a_public_key_in_a_second_spelling_is_refused",
    ),
    _without(
        "a reply's study", "replies.py", "session.study != self._session.study",
        "test_reply_of_another_session_is_rejected",
    ),
    _without(
        "a reply's roster", "replies.py", "session.roster != self._session.roster",
        "test_reply_of_another_session_is_rejected",
    ),
    _without(
        "one key, one party", "session.py",
        "len({*self.public_keys, self.coordinator}) != self.parameters.n + 1",
        "test_one_key_for_two_parties_is_refused",
    ),
    _without("1 <= h < n", "params.py", "not 1 <= h < n", "test_nonsense_is_refused"),
    _without("t <= n", "params.py", "not t <= n", "test_nonsense_is_refused"),
    _without(
        "2 t > n, semi-honest", "params.py", "not 2 * t > n",
        "test_semi_honest_study_needs_half_of_the_roster_and_more_than_the_colluders",
    ),
    _without(
        "t > h, semi-honest", "params.py", "not t > h",
        "test_semi_honest_study_needs_half_of_the_roster_and_more_than_the_colluders",
    ),
    _without("t <= cohort <= n", "params.py", "not t <= cohort <= n", "test_nonsense_is_refused"),
    _without(
        "degree and threshold together", "params.py", "(degree is None) != (least is None)",
        "test_impossible_rings_are_refused",
    ),
    _without(
        "an even degree", "params.py",
        "type(degree) is not int or type(least) is not int or degree < 2 or degree % 2",
        "test_impossible_rings_are_refused",
    ),
    _without(
        "a degree below the cohort's", "params.py", "not degree < self.threshold - 1",
        "test_impossible_rings_are_refused",
    ),
    _without(
        "a neighbourhood's threshold", "params.py", "not degree // 2 + 2 <= least <= degree + 1",
        "test_impossible_rings_are_refused",
    ),
    _without(
        "length of a packed stream", "packing.py", "len(stream) != expected",
        "test_another_length_is_refused",
    ),
    _without(
        "stray bits of a packed stream", "packing.py", "used and int(stream[-1]) >> used",
        "test_each_stray_bit_after_the_last_value_is_refused",
    ),
    _without(
        "a list has its bytes", "codec.py", "count * size > len(self._left)",
        "test_count_without_its_bytes_is_refused_at_once",
    ),
    Check(
        "magic", "codec.py", "reader.take(len(MAGIC)) != MAGIC", 'reader.take(len(MAGIC)) == b""',
        "test_other_version_kind_or_magic_is_refused",
    ),
    _without(
        "a kind that is one", "codec.py", "number not in _READERS",
        "test_other_version_kind_or_magic_is_refused",
    ),
    _without(
        "a purpose that is one", "codec.py", "not 1 <= purpose <= len(PURPOSES)",
        "test_other_version_kind_or_magic_is_refused",
    ),
    _without(
        "receipts are signed", _SESSION,
        "not verify(coordinator, RECEIPTS, text, request.receipts_signature)",
        "test_receipts_that_the_coordinator_did_not_sign_leave_the_ledger_as_it_is",
    ),
    Check(
        "a receipts' signature covers them", "common/wire.py",
        'return _header_text({**named, "sums": sums, "receipts": request.receipts})',
        'return _header_text({**named, "sums": sums})',
        "test_receipts_that_the_coordinator_did_not_sign_leave_the_ledger_as_it_is",
    ),
    Check(
        "a receipts' signature covers the session", "common/wire.py",
        '{**named, "sums": sums, "receipts"', '{**named, "receipts"',
        "test_receipts_that_the_coordinator_did_not_sign_leave_the_ledger_as_it_is",
    ),
    Check(
        "a receipts' signature covers the round", "common/wire.py",
        '"study": request.study, "round": request.round}', '"study": request.study}',
        "test_receipts_that_the_coordinator_did_not_sign_leave_the_ledger_as_it_is",
    ),
    Check(
        "heads are signed", "server/receipts.py",
        "if verify(key, HEADS, head_text(reply), reply.ledger_signature):", "if True:",
        "test_a_head_that_its_institution_did_not_sign_is_not_countersigned_and_locks_nobody",
    ),
    Check(
        "a head's signature covers it", "common/wire.py",
        '"institution": reply.institution, "ledger": reply.ledger}',
        '"institution": reply.institution}',
        "test_a_head_that_its_institution_did_not_sign_is_not_countersigned_and_locks_nobody",
    ),
    Check(
        "a head's signature covers the reply it lies in", "common/wire.py",
        'return _header_text({**named, "sums": sums, **said})', "return _header_text(said)",
        "test_a_head_that_its_institution_did_not_sign_is_not_countersigned_and_locks_nobody",
    ),
    _without(
        "a request's study", _SESSION, "request.study != self._hash",
        "test_another_study_is_refused",
    ),
    Check(
        "a request's round", _SESSION,
        "if request.round > self._study.training.rounds or (request.round < 1) != (\n"
        '            request.kind == "hello"\n        ):\n',
        "if False:\n", _STALE,
    ),
    _without(
        "an evaluation that is due", _SESSION,
        'request.kind == "evaluate" and not evaluation_due(self._study, request.round)',
        "test_an_evaluation_that_is_not_due_touches_no_data",
    ),
    _without(
        "a model's dimension", _SESSION,
        "len(request.body) not in {0, 4 * self._model.layout.size}",
        "test_a_vector_of_another_dimension_is_refused",
    ),
)  # fmt: skip
