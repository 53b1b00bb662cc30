"""Contact sheets, curves and tables."""
