"""Fixtures of the tests of sweeps by jobs."""

from helpers.fake_slurm import slurm

__all__ = ["slurm"]
