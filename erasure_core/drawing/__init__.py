"""Pictures and tables for reports: contact sheets, loss curves, markdown tables."""
