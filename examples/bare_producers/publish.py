"""Ask for one execution with pika alone: a CloudEvent by hand, published with a confirm. Prints the execution id.

python publish.py amqp://user:password@host:5672/vhost PROGRAM_ID '{"question": "Why is the sky blue?"}'
"""

import json
import sys
import uuid
from datetime import UTC, datetime

import pika

EXECUTE = "dspex.program.execute.v1"


def execute_message(execution_id: str, program_id: str, inputs: dict[str, object]) -> dict[str, object]:
    """The command in its envelope, CloudEvents 1.0 in structured JSON."""
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": "/examples/bare_producers/python",
        "type": EXECUTE,
        "time": datetime.now(UTC).isoformat(),
        "datacontenttype": "application/json",
        # The execution id is ours: sending the same one again does not run the program again.
        "data": {"execution_id": execution_id, "program_id": program_id, "inputs": inputs},
    }


def publish(url: str, message: dict[str, object]) -> None:
    """Returns once the broker has stored it. Raises pika's UnroutableError, NackError or AMQPError where it has not."""
    properties = pika.BasicProperties(
        content_type="application/cloudevents+json",
        message_id=str(message["id"]),
        delivery_mode=pika.DeliveryMode.Persistent,
    )
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()  # without it a message can be lost and nobody told
        body = json.dumps(message).encode()
        channel.basic_publish("dspex.commands", EXECUTE, body, properties, mandatory=True)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    url, program_id, inputs = sys.argv[1:]
    execution_id = str(uuid.uuid4())
    publish(url, execute_message(execution_id, program_id, json.loads(inputs)))
    print(execution_id)
