"""Privacy mechanisms and what a run must say about them."""
