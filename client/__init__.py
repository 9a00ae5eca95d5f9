"""The institution: the relay that Flower runs, and the trusted worker behind it."""
