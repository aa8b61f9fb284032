"""One run inside a rank: model, trainer, evaluation, clocks, and the worker. May import `data`
and rooms before it.
"""

from hpml_bench.system.packages import silence_bitsandbytes

silence_bitsandbytes()  # before a module of this package imports PEFT
