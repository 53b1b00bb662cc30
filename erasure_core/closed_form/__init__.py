"""The closed forms of UCE and RECE, and the statistics of concepts that they need."""

from .derived_contexts import derived_context
from .uce import edit_map

__all__ = ["derived_context", "edit_map"]
