"""Conditionings as denoisers take them: no test in the pure tier traces a model."""
