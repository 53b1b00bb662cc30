"""Concepts as users write them: parsing, lists in files, comparing names, and everyday concepts to preserve."""
