"""The closed forms of UCE (arXiv 2308.14761) and RECE (arXiv 2407.12383), and the sufficient statistics they need."""

from .derived_contexts import derived_context
from .linalg import gram_matrix
from .uce import edit_map

__all__ = ["derived_context", "edit_map", "gram_matrix"]
