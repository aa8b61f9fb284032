"""Decisions: from times and counts to verdicts and their sentences; imports only `records` of the gate."""
