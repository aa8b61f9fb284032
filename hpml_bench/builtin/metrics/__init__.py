"""Metrics by which a suite may rank its methods in place of the task's score, one in each file."""
