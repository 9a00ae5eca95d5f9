"""What an institution allows: decided in its worker, before any data is touched."""

from dataclasses import dataclass

from common.config.canonical import study_hash
from common.config.site import Policy
from common.config.study import Study


@dataclass(frozen=True, slots=True)
class Decision:
    """`reasons` is empty when the study is allowed. Reasons stay at the site."""

    reasons: tuple[str, ...]

    @property
    def allowed(self) -> bool:
        return not self.reasons


def decide(study: Study, policy: Policy, institution: str) -> Decision:
    """Check a study against an institution's policy. Whatever is not allowed is refused."""
    reasons = []
    if institution not in study.federation.institutions:
        reasons.append(f"{institution} is not on the study's roster")
    found = study_hash(study)
    if policy.study_sha256 is not None and policy.study_sha256 != found:
        reasons.append(f"the site pins study {policy.study_sha256}, this one is {found}")
    if study.privacy == "none" and not policy.accept_privacy_none:
        reasons.append(
            "the study has `privacy: none`; the site does not `accept_privacy_none: true`"
        )
    if study.secure_aggregation == "none" and not policy.accept_secure_aggregation_none:
        reasons.append(
            "the study has `secure_aggregation: none`; the site does not "
            "`accept_secure_aggregation_none: true`"
        )
    return Decision(tuple(reasons))
