"""What runs each command of README and docs/: here it is looked up, `test_documented_runs` runs.

```sh              in a folder with the samples on a tiny encoder, by test_documented_runs
```sh slow         the same, marked slow
```sh one-machine  as a script, real processes, by test_documented_runs, slow
```sh auditor      on what that left
```sh coordinator, institution     of README: test_readme; of docs/walkthrough.md, with its other
                   parties: test_namespaces, slow
else               by a test in `ELSEWHERE`, or a command that stands in one of these, too
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from scripts.benchmarks._namespaces_text import PARTIES, Block, read_blocks
from tests.commands import typed
from tests.pages import ROOT, Page

STAGES = ("slow", "one-machine", "auditor")
PARSED_ONLY = {"docs/results.md": "measurements of up to an hour; each says at which commit"}
ELSEWHERE = {
    "client relay.yaml --side relay": "integration/test_sides.py::"
    "test_a_study_with_worker_and_relay_as_two_users_gives_the_simulations_model",
    "client site.yaml --side worker": "integration/test_sides.py::"
    "test_a_study_with_worker_and_relay_as_two_users_gives_the_simulations_model",
    "client site.yaml --write-relay relay.yaml": "integration/test_sides.py::"
    "test_the_relays_file_is_written_out_of_the_sites_and_never_over_another",
    "doctor relay.yaml --side relay": "integration/test_documented_runs.py::"
    "test_a_relays_doctor_looks_at_its_side_without_complaint",
    "health site.yaml": "integration/test_health.py::"
    "test_the_verb_asks_a_sites_worker_and_through_a_relays_file",
    "health relay.yaml --side relay": "integration/test_health.py::"
    "test_the_verb_asks_a_sites_worker_and_through_a_relays_file",
    "health --federation federation": "integration/test_health.py::"
    "test_the_verb_asks_a_federations_server_over_tls_and_trusts_its_authority_alone",
    "identity new north --out identity": "integration/test_identity_cli.py::"
    "test_new_asks_for_the_passphrase_twice_and_does_not_echo_it",
    "identity new ethics --out ethics": "integration/test_identity_cli.py::"
    "test_new_asks_for_the_passphrase_twice_and_does_not_echo_it",
    "roster make --coordinator coordinator/public.json --institution identity/public.json "
    "--institution east/public.json --institution west/public.json "
    "--note agreed by telephone on 3 May --out roster.yaml": "integration/test_identity_cli.py::"
    "test_a_note_of_any_text_comes_back",
    "budget recover site.yaml --reason what happened": "integration/test_budget_cli.py::"
    "test_recover_keeps_the_files_and_counts_the_cap_as_spent",
    "policy sign study.yaml --key ethics --as ethics committee --roster roster.yaml "
    "--out ethics.json": "integration/test_cli.py::test_a_sign_off_names_the_roster_too",
    "policy verify site.yaml": "integration/test_policy_cli.py::"
    "test_a_sign_off_is_made_once_and_verified",
    "server --resume RUN": "integration/test_server_killed.py::"
    "test_a_server_killed_in_mid_round_goes_on_to_the_same_weights_and_charges_nothing_twice",
    "server --resume RUN --address HOST:PORT": "integration/test_runs_cli.py::"
    "test_a_run_is_gone_on_with_at_another_address",
    "server --partial RUN": "integration/test_secure_verbs.py::"
    "test_the_model_of_a_run_that_ended_early_says_that_it_is_not_finished",
    "provision FEDERATION.yaml --out federation --renew": "integration/test_provision_cli.py::"
    "test_a_renewal_keeps_authority_and_keys_and_takes_new_names",
    "enrol revoke NAME --federation federation": "integration/test_provision_cli.py::"
    "test_who_is_revoked_or_leaves_has_no_node_key_and_there_is_no_roster",
    "enrol approve request.json --federation federation": "integration/test_provision_cli.py::"
    "test_institutions_ask_and_the_coordinator_never_holds_their_keys",
    "enrol request site.yaml --federation FEDERATION --out request.json "
    "--passphrase-file passphrase": "integration/test_cli.py::"
    "test_a_second_request_under_a_passphrase_has_the_same_keys",
    "encoder add NAME": "integration/test_cli.py::test_an_encoder_is_added_verified_and_listed",
    "encoder list": "integration/test_cli.py::test_an_encoder_is_added_verified_and_listed",
    "export runs/RUN/model --out exported --identity coordinator --passphrase-file passphrase":
    "integration/test_cli.py::test_a_model_is_signed_with_a_sealed_key_and_verified_by_its_file",
    "verify exported --unsigned": "integration/test_export.py::"
    "test_an_unsigned_folder_says_so_loudly",
    "verify exported --key coordinator/public.json": "integration/test_cli.py::"
    "test_a_model_is_signed_with_a_sealed_key_and_verified_by_its_file",
    **dict.fromkeys(
        ("verify exported --key KEY", "verify exported --roster roster.yaml",
         "verify exported --roster roster.yaml --by cardiac-centre"),
        "integration/test_export.py::test_a_signed_folder_verifies_by_key_by_file_and_by_roster",
    ),
    "watch runs/RUN": "integration/test_processes.py::test_both_sides_can_be_watched",
    "watch runs/RUN --tensorboard tensorboard": "integration/test_runs_cli.py::"
    "test_a_finished_run_is_watched_into_event_files_that_hold_its_scores",
    "watch site.yaml": "integration/test_processes.py::test_both_sides_can_be_watched",
    "train site.yaml --out alone": "integration/test_cli.py::"
    "test_training_alone_and_pooled_saves_a_model_that_evaluates",
    "evaluate MODEL site.yaml --groups groups.tsv": "integration/test_cli.py::"
    "test_scores_by_group_add_up_to_all",
    **dict.fromkeys(
        ("report site.yaml --alone alone",
         "report site.yaml --groups groups.json",
         "report site.yaml --alone alone --groups groups.json",
         "evaluate MODEL site.yaml --groups groups.tsv --json"),
        "integration/test_site_report.py::"
        "test_every_figure_of_a_sites_report_is_what_stands_at_its_source",
    ),
    "config reference": "unit/test_config_reference.py::"
    "test_the_page_is_what_the_command_prints",
}  # fmt: skip
"""A command as a page has it, and the test that runs it, with all its options, on its own files."""


def blocks(page: Page) -> list[Block]:
    """Blocks of the page that somebody types, or a stage runs; `sh` alone has no party."""
    return read_blocks(page.text, page.name, (*PARTIES, *STAGES))


def staged(page: Page) -> list[str]:
    """Lines of the page's blocks `sh`."""
    return [line for fence in page.fences if fence.info == "sh" for line in fence.text.splitlines()]


def commands(text: str) -> Iterator[str]:
    """Each command of fedner's in shell text, without `fedner`."""
    for found in typed(f"```\n{text}\n```"):
        yield " ".join(found.words)


@cache
def run_as_typed() -> frozenset[str]:
    """Commands that a test runs as they stand on a page."""
    found = set[str]()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        page = Page(path)
        parties = PARTIES if path.stem in ("README", "walkthrough") else ()
        texts = [block.text for block in blocks(page) if block.party in (*parties, *STAGES)]
        found |= {one for text in (*texts, "\n".join(staged(page))) for one in commands(text)}
    return frozenset(found)


def runner(command: str) -> str | None:
    """Which test runs it: `page` as it is typed, or one of `ELSEWHERE`; none."""
    return "page" if command in run_as_typed() else ELSEWHERE.get(command)


@cache
def known_tests(path: Path) -> dict[str, bool]:
    """Tests of a file by name; whether each is slow."""
    tree = ast.parse(path.read_text("utf-8"))
    marks = [node for node in tree.body if isinstance(node, ast.Assign)]
    whole = any("mark.slow" in ast.unparse(node) for node in marks)
    return {
        node.name: whole or any("mark.slow" in ast.unparse(one) for one in node.decorator_list)
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
