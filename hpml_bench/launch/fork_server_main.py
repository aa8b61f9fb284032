"""Imported first by the fork server: from here on it ends with the process that started it, and its children with it.

By itself the server lives on after a kill of that process for as long as it has children, and they as long as they
work: they hold the other end of the pipe that would tell it.

Ctrl-C reaches the whole terminal group, and is the parent's to answer: here it would end an import with a traceback.
The server is born with the signal blocked; ignored from here on, it may be let through. Children inherit that.
"""

from __future__ import annotations

import os
import signal

from hpml_bench.system.parent_death import die_with_parent

signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
die_with_parent()
os.register_at_fork(after_in_child=die_with_parent)
