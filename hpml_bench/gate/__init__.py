"""The command `hpml-bench check`: whether a training step got slower or heavier, with known error
rates.

`records`, `machine`, `rank_tests`, `verdicts` and `sides` come first; `check`, `baseline` and
`selftest` measure with them, `workload` and `resident` are of the processes that train, `page` and
`outputs` show. May import `training`, `report` and the packages before them.
"""
