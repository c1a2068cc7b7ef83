"""Dies of a segmentation fault inside the first stage."""

import os
import signal

from . import wire

wire.ready()
job = wire.next_job()
wire.open_first_stage(job)
os.kill(os.getpid(), signal.SIGSEGV)
