"""What an erasure did and what it leaves: comparison, report, attacks, and who judges pictures."""
