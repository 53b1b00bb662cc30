"""The parts of docs/results.md, each with its jobs, its rows and its section."""
