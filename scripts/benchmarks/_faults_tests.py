"""Faults for which a test makes all that is real already: the row runs that test, and says so."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_GATE: Final = "tests/integration/test_gate_flower.py::"
_SIGNATURES: Final = "tests/unit/test_faults_signatures.py::"
_POLICY: Final = "tests/integration/test_policy_cli.py::"
LIMIT_S: Final = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One line of the table.

    Attributes:
        outcome: what the tests assert.
        tests: node ids of pytest.
    """

    name: str
    fault: str
    outcome: str
    tests: tuple[str, ...]


TESTED: Final = (
    Shown(
        name="certificate-expired",
        fault="the server's certificate is over",
        outcome="the node ends with an error that names the certificate",
        tests=(f"{_GATE}test_a_node_refuses_a_server_with[expired]",),
    ),
    Shown(
        name="certificate-name",
        fault="the server's certificate has another name",
        outcome="the node ends with an error that names the certificate",
        tests=(f"{_GATE}test_a_node_refuses_a_server_with[wrong name]",),
    ),
    Shown(
        name="certificate-authority",
        fault="the server's certificate is another authority's",
        outcome="the node ends with an error that names the certificate",
        tests=(f"{_GATE}test_a_node_refuses_a_server_with[another CA]",),
    ),
    Shown(
        name="nodes",
        fault="a node without a key, an unregistered and a revoked one",
        outcome="refused with Flower's 2001 and 2004; the revoked one ends, too",
        tests=(f"{_GATE}test_only_a_registered_node_joins_and_a_revoked_one_does_not",),
    ),
    Shown(
        name="stranger-paths",
        fault="a stranger on every Control and Runtime path",
        outcome="404 from the gate on each, 401 on each Fleet path without a node key",
        tests=(
            f"{_GATE}test_a_stranger_reaches_no_control_and_no_runtime_path",
            f"{_GATE}test_a_stranger_without_a_node_key_gets_nothing_from_a_fleet_path",
            f"{_GATE}test_a_stranger_with_a_key_of_its_own_gets_no_further",
        ),
    ),
    Shown(
        name="replay-inside",
        fault="a node's signature sent again within 305 s",
        outcome="taken, for any body (documented; TLS hides it, sums are signed)",
        tests=(
            f"{_SIGNATURES}test_flowers_time_for_a_signature_is_305_seconds",
            f"{_SIGNATURES}test_inside_its_time_a_signature_counts_again_and_for_any_body",
        ),
    ),
    Shown(
        name="replay-outside",
        fault="a node's signature sent again after 306 s, an hour, or 8 s before its time",
        outcome="401 before the body is read",
        tests=(f"{_SIGNATURES}test_outside_of_it_and_from_the_future_it_does_not",),
    ),
    Shown(
        name="bundle-other",
        fault="a bundle of other code, which would run something else at the institution",
        outcome="nothing of it runs: the node's relay is the installed one",
        tests=(
            "tests/integration/test_flower_internals.py::"
            "test_superexec_runs_the_installed_relay_in_a_child_and_refuses_other_tasks",
        ),
    ),
    Shown(
        name="bundle-byte",
        fault="one byte of the installed code changed, its hash pinned",
        outcome="another hash; the worker ends with `code-pin` before data are opened",
        tests=(
            f"{_POLICY}test_the_codes_hash_changes_with_every_byte_and_name_and_with_nothing_else",
            f"{_POLICY}test_a_worker_refuses_before_any_data_is_opened[code-pin]",
        ),
    ),
    Shown(
        name="coordinator-key",
        fault="a receipt by another coordinator than the policy's `coordinator_key`",
        outcome="the request is refused (`privacy-budget`), the pinned one's goes on",
        tests=(
            "tests/integration/test_private_session.py::"
            "test_another_coordinators_receipt_than_the_pinned_one_is_refused",
        ),
    ),
)


def tested_rows(only: Callable[[str], bool]) -> Iterator[dict[str, Any]]:
    """A line of the table for each."""
    root = Path(__file__).resolve().parents[2]
    for one in TESTED:
        if only(one.name):
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-x",
                "-m",
                "",
                "-p",
                "no:cacheprovider",
            ]
            done = subprocess.run(
                [*command, *one.tests], cwd=root, capture_output=True, text=True, check=False,
                timeout=LIMIT_S,
            )  # fmt: skip
            line = {"row": one.name, "fault": one.fault, "shown": one.outcome, "by": one.tests}
            failed = {} if done.returncode == 0 else {"failed": done.stdout[-1500:]}
            yield line | failed
