"""Encoder, head and the loops that train and evaluate them."""
