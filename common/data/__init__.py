"""Annotated documents: records, formats, alignment, partitions, synthetic notes."""
