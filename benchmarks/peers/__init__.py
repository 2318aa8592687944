"""The measured systems, including ours: one module each, written as its documentation recommends.

`python -m benchmarks.peers NAME` is the process of a producer, which calls these functions of the module:

    def prepare() -> None: ...                      what a fresh database and broker need before the first job
    def publish(jobs: Iterable[Job]) -> None: ...   returns when all of them are stored, with confirms
    def asking() -> ContextManager[Ask]: ...        an Ask publishes one job, waits, and returns its outputs

A module is an application of its own, read by the command line of its system: it takes where it runs from the
environment (`benchmarks.peers.job`), and the harness never imports it. How its workers are started, and what it was
given, stands in `benchmarks/systems.py`.
"""
