"""One pure function: study, policy, institution and facts to a decision.

Guarantees:
    - The same study, policy and facts give the same decision.
    - Whatever is not allowed is refused, all of it at once, each with a code and with the figures.
    - A fact that the policy asks for and nobody has shown counts against the study.

Codes and messages stay at the site; the coordinator learns that a policy refused, nothing else.
Caps on all studies together need the ledger and are decided there, before each charge.
"""

from collections.abc import Iterator
from typing import Final

from common.config.canonical import study_hash
from common.config.secagg import SecureAggregation
from common.config.site import Policy
from common.config.study import Study
from common.identity.sign_off import NO_ROSTER
from common.policy.privacy import on_lifetimes, on_privacy
from common.policy.terms import WORK, Code, Decision, Facts, Refused, no

NOTHING_SHOWN: Final = Facts()


def decide(
    study: Study, policy: Policy, institution: str, facts: Facts = NOTHING_SHOWN
) -> Decision:
    """Check a study against an institution's policy. Whatever is not allowed is refused."""
    return Decision(
        (
            *_identity(study, policy, institution),
            *_site(policy, facts),
            *_scope(study, policy),
            *_hours(policy, facts),
            *on_privacy(study, policy, institution),
            *on_lifetimes(policy, facts),
            *_aggregation(study.secure, policy),
            *_signatures(study, policy, facts),
            *_exclusions(policy, facts),
        )
    )


def _identity(study: Study, policy: Policy, institution: str) -> Iterator[Refused]:
    if institution not in study.federation.institutions:
        yield no(Code.INSTITUTION, f"{institution} is not on the study's roster")
    found = study_hash(study)
    if policy.studies is not None and found not in policy.studies:
        pinned = " or ".join(policy.studies)
        yield no(Code.STUDY, f"the site pins study {pinned}, this one is {found}")


def _site(policy: Policy, facts: Facts) -> Iterator[Refused]:
    if facts.users == "one" and not policy.accept_one_user:
        yield no(
            Code.USERS,
            "worker and relay run as one OS user, so that code the coordinator ships could read "
            "the worker's files; the site names no `relay_group`, and does not "
            "`accept_one_user: true`",
        )
    if policy.code_sha256 is not None and facts.code_sha256 != policy.code_sha256:
        yield no(
            Code.CODE,
            f"the site pins code {policy.code_sha256}, what is installed is "
            f"{facts.code_sha256 or 'not known'}",
        )


def _scope(study: Study, policy: Policy) -> Iterator[Refused]:
    if study.task.kind not in policy.tasks:
        yield no(
            Code.TASK,
            f"the study's task is {study.task.kind}; the site's `tasks` are "
            f"{', '.join(policy.tasks)}",
        )
    more = [] if policy.labels is None else [x for x in study.task.labels if x not in policy.labels]
    if more:
        yield no(
            Code.LABELS, f"the study predicts {', '.join(more)}; the site's `labels` do not hold it"
        )
    if policy.max_rounds is not None and study.training.rounds > policy.max_rounds:
        yield no(
            Code.ROUNDS,
            f"the study has {study.training.rounds} rounds; the site's `max_rounds` is "
            f"{policy.max_rounds}",
        )


def _hours(policy: Policy, facts: Facts) -> Iterator[Refused]:
    """Of what touches the data; greetings and the later stages of a sum are answered always."""
    if not policy.hours or facts.asked not in WORK:
        return
    if facts.now is None or not any(window.holds(facts.now) for window in policy.hours):
        now = "not known" if facts.now is None else f"{facts.now:%a %Y-%m-%d %H:%M %Z}"
        hours = "; ".join(str(window) for window in policy.hours)
        yield no(Code.HOURS, f"the time is {now}; the site's `hours` are {hours}")


def _signatures(study: Study, policy: Policy, facts: Facts) -> Iterator[Refused]:
    found, roster = study_hash(study), policy.roster_sha256 or NO_ROSTER
    for needed in policy.sign_offs:
        role, key = needed.role, needed.public_key
        if any(one.covers(role, key, found, roster) for one in facts.sign_offs):
            continue
        under = f"under roster {roster}" if roster else "without a roster"
        yield no(Code.SIGN_OFF, f"no sign-off as {role}, with key {key}, of study {found} {under}")


def _exclusions(policy: Policy, facts: Facts) -> Iterator[Refused]:
    if facts.exclude_problem:
        yield no(Code.EXCLUDE, f"who has withdrawn can't be known: {facts.exclude_problem}")
    if facts.exclude_unknown and not policy.accept_unknown_exclusions:
        yield no(
            Code.EXCLUDE_UNKNOWN,
            f"{facts.exclude_unknown} ids of the list of the withdrawn are of no document here; "
            "the site does not `accept_unknown_exclusions: true`",
        )


def _aggregation(section: SecureAggregation | None, policy: Policy) -> Iterator[Refused]:
    if section is None:
        if not policy.accept_secure_aggregation_none:
            yield no(
                Code.AGGREGATION_NONE,
                "the study has `secure_aggregation: none`; the site does not "
                "`accept_secure_aggregation_none: true`",
            )
        return
    if section.adversary == "semi_honest" and not policy.accept_semi_honest:
        yield no(
            Code.SEMI_HONEST,
            "the study assumes that the coordinator follows the protocol; the site does not "
            "`accept_semi_honest: true`",
        )
    if (section.min_cohort or 0) < policy.min_cohort:
        yield no(
            Code.COHORT,
            f"the study opens sums of {section.min_cohort} institutions; the site's `min_cohort` "
            f"is {policy.min_cohort}",
        )
    if policy.roster_sha256 is None:
        yield no(
            Code.ROSTER,
            "the study has secure aggregation, and the site pins no roster: `roster_sha256`",
        )
    elif section.roster_sha256 not in {None, policy.roster_sha256}:
        yield no(
            Code.ROSTER,
            f"the study is for roster {section.roster_sha256}, the site pins roster "
            f"{policy.roster_sha256}",
        )
