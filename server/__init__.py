"""The coordinator: pure round plan, aggregation, and its Flower adapter."""
