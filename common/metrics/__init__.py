"""Entity-level and token-level reports, and counts that merge."""
