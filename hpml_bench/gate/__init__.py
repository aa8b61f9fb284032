"""`hpml-bench check`: did a training step get slower, or heavier? Verdicts whose error rates are known."""
