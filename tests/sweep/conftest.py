"""Fixtures of the tests of sweeps by jobs."""

from __future__ import annotations

from helpers.fake_slurm import slurm

__all__ = ["slurm"]
