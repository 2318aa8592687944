"""The process of a producer: reads commands as JSON lines, and answers each with a line.


`{"do": "publish", "jobs": 1000}` is answered when all jobs are stored, with the seconds of wall clock and of this
process's CPU.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.peers.job import make_jobs


def main() -> None:
    """Serve until standard input ends."""
    peer = importlib.import_module(f"benchmarks.peers.{sys.argv[1]}")
    actions: dict[str, Callable[..., dict[str, Any]]] = {
        "prepare": _prepare,
        "publish": _publish,
        "publish_each": _publish_each,
        "ask": _ask,
    }
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(actions[asked.pop("do")](peer, **asked)), flush=True)


def _prepare(peer: Any) -> dict[str, Any]:
    peer.prepare()
    return {}


def _publish(peer: Any, *, jobs: int, hot: bool = False, size: int = 0) -> dict[str, Any]:
    began, cpu = time.monotonic(), _cpu_seconds()
    peer.publish(make_jobs(jobs, hot=hot, size=size))
    return {"began": began, "seconds": time.monotonic() - began, "cpu": _cpu_seconds() - cpu}


def _publish_each(peer: Any, *, jobs: int) -> dict[str, Any]:
    """Publish jobs one at a time, waiting for each."""
    milliseconds = []
    for job in make_jobs(jobs):
        began = time.perf_counter()
        peer.publish([job])
        milliseconds.append((time.perf_counter() - began) * 1000)
    return {"milliseconds": milliseconds}


def _ask(peer: Any, *, times: int, warm_up: int) -> dict[str, Any]:
    milliseconds = []
    with peer.asking() as ask:
        for job in make_jobs(warm_up + times):
            began = time.perf_counter()
            if not ask(job):
                raise RuntimeError(f"{job.execution_id} has no result")
            milliseconds.append((time.perf_counter() - began) * 1000)
    return {"milliseconds": milliseconds[warm_up:]}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
