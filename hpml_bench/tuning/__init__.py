"""Fair tuning of the methods' learning rates: equal trials and budget for all, on rows that are never the test rows."""
