"""What nodes pass to one another."""

from comfy_api.latest import io

CATEGORY = "Erasure"

Erasure = io.Custom("ERASURE")
"""Carries an ``erasure_core.Erasure``."""
