"""Names of the files of a results folder."""

RECORD = "run.json"
# the suite as it was run, beside the runs; the report takes its description and order
SUITE = "suite.json"
PLAN = "plan.json"  # plan of a sweep by jobs
MEASURED_SETTINGS = (
    "definite.json"  # measurements by which settings are decided that a suite leaves open
)
POINTS = "points.jsonl"
OUTCOME = "outcome.json"
# how a line of a rank's log begins that says why a state isn't saved or can't be read
NOT_SAVED = "no checkpoint: "
# folder of a run that isn't done, with a folder for each step whose state was saved
CHECKPOINTS = "checkpoints"
COMMAND = "command"  # folder of a run under way, with what its own program reads and writes
PREDICTIONS = "predictions.parquet"
# beside a server's answers: how they differ from those of the run that it claims to be
AGREEMENT = "agreement.json"
KEPT = "kept"  # folder of a run's trained parts, which `run-all --keep` writes
SET_ASIDE = "set-aside"  # folder beside the runs for damaged and outdated ones
TRACKING = frozenset({"mlflow", "tensorboard", "trackio", "wandb"})
"""Folders beside the runs in which trackers keep state of their own: no part of a result."""
