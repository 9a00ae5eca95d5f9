"""What the stages of a request and of a secure sum are called before people."""

from typing import Final

STAGES: Final = {
    "advertise": "keys",
    "share": "boxes",
    "mask": "training and masked updates",
    "sign": "signatures",
    "open": "shares and sum",
}
"""Of the secure sum of a round's updates, in order; keys as in the metrics."""
