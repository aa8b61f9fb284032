"""First import of the fork server: from here on it ends with its parent, and its children end with
it.

Without this, the server would outlive a parent that is killed, until its last child ends: the
children hold the write end of the pipe whose closing tells the server to exit. Ctrl-C reaches every
process of the terminal, and only the parent reacts to it: it starts the server with the signal
blocked; this module ignores it, then unblocks it.
"""

import gc
import os
import signal

from hpml_bench.system.child import die_with_parent

SERVER = os.getpid()


def _freeze() -> None:
    """Keep a rank's garbage collections, which fall into its steps, from going through what the
    server has imported.
    """
    if os.getpid() == SERVER:
        gc.freeze()


signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
die_with_parent()
os.register_at_fork(before=_freeze, after_in_child=die_with_parent)
