"""`GET /metrics`: the state of one server in Prometheus' text format, read when it is asked for.

Imported at the first scrape, because the client library costs start-up time. No label has a value that a caller
chooses.
"""

import contextlib
from collections.abc import Iterator
from itertools import accumulate

import psutil
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ..contract.schemas import JobState
from ..contract.stages import EngineName
from ..hardware import GpuInfo
from ..jobs.counters import BOUNDS_S
from ..jobs.service import JobService

CONTENT_TYPE = CONTENT_TYPE_LATEST


def expose(service: JobService, gpus: list[GpuInfo]) -> bytes:
    """Every metric as text."""
    return generate_latest(_ServerCollector(service, gpus))


class _ServerCollector(Collector):
    def __init__(self, service: JobService, gpus: list[GpuInfo]) -> None:
        self._service = service
        self._gpus = gpus

    def collect(self) -> Iterator[Metric]:
        service, counters = self._service, self._service.counters
        jobs = CounterMetricFamily("ad_agent_jobs", "Jobs that are over", labels=("engine", "outcome"))
        for engine in EngineName:
            for outcome in (state for state in JobState if state.is_terminal):
                jobs.add_metric((engine, outcome), counters.ended[engine, outcome])
        yield jobs
        stages = HistogramMetricFamily("ad_agent_stage_seconds", "Duration of stages", labels=("engine", "stage"))
        for key, counts in list(counters.stages.items()):  # this is a thread beside the one that counts
            buckets = list(zip((*map(str, BOUNDS_S), "+Inf"), accumulate(counts), strict=True))
            stages.add_metric(key, buckets, counters.stage_seconds[key])
        yield stages
        yield GaugeMetricFamily("ad_agent_jobs_running", "Jobs that have the worker", int(service.current is not None))
        yield GaugeMetricFamily("ad_agent_queue_length", "Jobs that wait for the worker", service.queue_length)
        yield CounterMetricFamily("ad_agent_worker_restarts", "Workers that were replaced", service.worker.restarts)
        used = GaugeMetricFamily("ad_agent_gpu_memory_used_bytes", "GPU memory in use by anyone", labels=("gpu",))
        total = GaugeMetricFamily("ad_agent_gpu_memory_total_bytes", "GPU memory", labels=("gpu",))
        for gpu in self._gpus:
            used.add_metric((str(gpu.index),), gpu.vram_used_mb << 20)
            total.add_metric((str(gpu.index),), gpu.vram_total_mb << 20)
        yield from (used, total)
        yield self._resident_memory()

    def _resident_memory(self) -> Metric:
        memory = GaugeMetricFamily("ad_agent_resident_memory_bytes", "Memory of our processes", labels=("process",))
        memory.add_metric(("server",), psutil.Process().memory_info().rss)
        ready = self._service.worker.ready
        if ready is not None:
            with contextlib.suppress(psutil.Error):  # it may die this very moment
                memory.add_metric(("worker",), psutil.Process(ready.pid).memory_info().rss)
        return memory
