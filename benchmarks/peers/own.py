"""DSPex with all features, as it is deployed: `dspex worker`, and `dspex.producer` in another process."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from functools import lru_cache

import migrations
from benchmarks.peers.job import BROKER_URL, DATABASE_URL, LATENCY_SECONDS, PROGRAM_IDS, SIGNATURE, Ask, Job
from dspex import CreateProgram, CreateSignature, ExecuteProgram, InitializeProgram, Signature, uuid7
from dspex.client.remote import RemoteClient
from dspex.contract.configuration import Configuration
from dspex.contract.results import ExecutionView, ProgramView, SignatureView
from dspex.producer import Producer
from workers.application.wiring import bootstrap
from workers.brokers import amqp
from workers.local import LocalClient
from workers.settings import load_settings

SOURCE = "/benchmark"


def prepare() -> None:
    """Migrate, declare the topology, and create the programs."""
    app = bootstrap(load_settings(database_url=DATABASE_URL, broker_url=BROKER_URL, log_level="WARNING"))
    migrations.upgrade(app.engine)
    amqp.check(BROKER_URL)
    client = LocalClient(app)
    signature_id = uuid7()
    client.call(CreateSignature(signature_id=signature_id, signature=Signature.parse(SIGNATURE)), SignatureView)
    configuration = Configuration(parameters={"latency_ms": LATENCY_SECONDS * 1000} if LATENCY_SECONDS else {})
    for number, program_id in enumerate(PROGRAM_IDS):
        create = CreateProgram(
            program_id=program_id,
            signature_id=signature_id,
            name=f"p {number}",
            adapter_type="mock",
            configuration=configuration,
        )
        client.call(create, ProgramView)
        client.call(InitializeProgram(program_id=program_id), ProgramView)
    app.close()


@lru_cache(maxsize=1)
def _producer() -> Producer:
    return Producer.connect(BROKER_URL, source=SOURCE)


def _command(job: Job) -> ExecuteProgram:
    return ExecuteProgram(execution_id=job.execution_id, program_id=job.program_id, inputs=job.inputs)


def publish(jobs: Iterable[Job]) -> None:
    """By `send_all`, which pipelines the confirms."""
    _producer().send_all(map(_command, jobs))


@contextmanager
def asking() -> Generator[Ask]:
    """By a reply queue."""
    with RemoteClient(BROKER_URL, source=SOURCE) as client:
        yield lambda job: client.call(_command(job), ExecutionView).outputs
