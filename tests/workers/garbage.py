"""Writes something that is no message."""

import os
import time

from . import wire

wire.ready()
job = wire.next_job()
os.write(1, b"Traceback (most recent call last): oh no")
time.sleep(60)
