"""The audit log: what each side did and refused, as a chain of signed lines. Pure."""
