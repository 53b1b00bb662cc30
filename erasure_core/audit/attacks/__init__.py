"""Attacks on an erasure, one a file: with them its maker finds out first what still brings the concept back."""
