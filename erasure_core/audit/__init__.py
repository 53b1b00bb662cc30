"""Auditing an erasure: comparison, report, attacks, and recognisers that judge pictures."""
