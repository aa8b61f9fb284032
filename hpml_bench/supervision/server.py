"""Imported first by the fork server: from here on it ends with the process that started it, and its children with it.

By itself the server lives on after a kill of that process for as long as it has children, and they as long as they
work: they hold the other end of the pipe that would tell it.
"""

from __future__ import annotations

import os

from hpml_bench.entry import die_with_parent

die_with_parent()
os.register_at_fork(after_in_child=die_with_parent)
