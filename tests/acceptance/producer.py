"""A producer as another service would be: a process of its own, which knows `dspex` and the broker's URL only.

producer.py URL programs ADAPTER COUNT          creates and initializes programs, prints their ids
producer.py URL executions ROWS PROGRAM_ID...   runs the programs in turn, the same ids at every call
"""

import sys
import uuid

import dspex
from dspex.producer import Producer

CANARY = "canary-7d1f0c"
"""As in `tests.canary`: no log line may show it."""
SIGNATURE = "question: str, k: int = 3 -> answer: str, label: Literal['a', 'b'], score: float"


def main() -> None:
    """Run one of the two commands."""
    url, what, *arguments = sys.argv[1:]
    with Producer.connect(url, source="/acceptance") as producer:
        if what == "programs":
            create_programs(producer, *arguments)
        else:
            run_programs(producer, *arguments)


def create_programs(producer: Producer, adapter_type: str, count: str) -> None:
    """One signature, and programs of it, all sent without waiting."""
    signature_id = uuid.uuid5(uuid.NAMESPACE_URL, SIGNATURE)
    program_ids = [uuid.uuid5(signature_id, str(number)) for number in range(int(count))]
    signature = dspex.Signature.parse(SIGNATURE)
    producer.send(dspex.CreateSignature(signature_id=signature_id, signature=signature))
    producer.send_all(
        dspex.CreateProgram(program_id=i, signature_id=signature_id, name=f"program {i}", adapter_type=adapter_type)
        for i in program_ids
    )
    producer.send_all(dspex.InitializeProgram(program_id=i) for i in program_ids)
    print(*program_ids)


def run_programs(producer: Producer, rows: str, *program_ids: str) -> None:
    """Executions whose ids follow from their number: at a second call the same ones."""
    sent = producer.send_all(
        dspex.ExecuteProgram(
            execution_id=uuid.uuid5(uuid.NAMESPACE_OID, str(number)),
            program_id=uuid.UUID(program_ids[number % len(program_ids)]),
            inputs={"question": f"{CANARY} {number}", "k": number},
        )
        for number in range(int(rows))
    )
    print(sent)


main()
