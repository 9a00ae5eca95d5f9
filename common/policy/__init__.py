"""What an institution allows: decided in its worker, before any data is touched."""

from common.policy.decision import decide
from common.policy.terms import WORK, Asked, Code, Decision, Facts, Refused

__all__ = ["WORK", "Asked", "Code", "Decision", "Facts", "Refused", "decide"]
