"""The gate: whether a training step got slower or heavier, by verdicts whose error rates are known.

Imports run one way: `records`, `measure`, `decide`, `render`, and last `check`, `baseline` and `selftest` with its
`trials`, which use all of them. `resident` is the other process of `measure`.

May import `training`, `report` and what is below them.
"""
