"""Reasons for which a test may be skipped in continuous integration; there, any other skip is a
failure.
"""

import os
import re

import pytest

NO_GPU = "no GPU is visible"
ONE_GPU = "fewer than two GPUs are visible"
NO_RAY = "Ray is not installed"
NO_LM_EVAL = "lm_eval is not installed"
NO_TRL = "TRL is not installed"
NO_TRACKERS = "mlflow, tensorboard and trackio are not installed"
NO_LLAMA = "xllamacpp is not installed"
NOT_ROOT = "not root"
CLOSED = "other users can't read this environment"
NO_CUDA_BUILD = "torch is built without CUDA; tox -e cuda installs a build with it"
ALLOWED = (
    NO_GPU,
    ONE_GPU,
    NO_RAY,
    NO_LM_EVAL,
    NO_TRL,
    NO_TRACKERS,
    NO_LLAMA,
    NOT_ROOT,
    CLOSED,
    NO_CUDA_BUILD,
)


def only_as_root(why: str) -> None:
    """Skip a test that needs a right of root; where root lacks it too, `why` is the reason,
    which CI doesn't accept.
    """
    pytest.skip(NOT_ROOT if os.geteuid() else why)


def must_run(reason: str) -> bool:
    """Tell whether a test that was skipped for this reason has to run here: under CI, unless the
    reason is allowed.
    """
    return bool(os.environ.get("CI")) and re.sub(r"^Skipped: ", "", reason) not in ALLOWED
