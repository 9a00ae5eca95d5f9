"""Secure aggregation: only the sum of what the institutions send is learnt.

Vectors are numpy `uint32` that hold values modulo `2^k`, 16 <= k <= 32, everywhere in this package.
"""
