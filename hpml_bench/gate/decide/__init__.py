"""Deciding: from times and counts to verdicts and their sentences; of the gate it imports `records`."""
