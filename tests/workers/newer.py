"""Tells of its work in words that came with a later version."""

import json
import os
import time

from ad_agent_mcp.contract.messages import FRAME_HEADER

from . import wire

wire.ready()
job = wire.next_job()
told = {"type": "stage_progress", "job_id": job.job_id, "stage": "finish", "done": 0, "total": 1, "shade": "blue"}
body = json.dumps(told).encode()
os.write(1, FRAME_HEADER.pack(len(body)) + body)
time.sleep(60)
