"""Samplers: no test in the pure tier samples in the host."""
