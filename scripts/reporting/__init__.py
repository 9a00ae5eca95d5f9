"""What a run's metrics say, as pages for people: every figure with the place it was read from."""
