"""Attacks on an erasure, for whoever made it to find out what still brings the concept back before others do."""
