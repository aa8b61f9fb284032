"""The command `hpml-bench check`: whether a training step got slower or heavier, with known error rates.

`measure`, `decide` and `render` import `records` and those before them in this order; `check`, `baseline` and
`selftest` use `measure` and `decide`, and the command line renders. May import `training`, `report` and the packages
before them.
"""
