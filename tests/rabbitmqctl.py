"""RabbitMQ's own command line, for what a test changes in a server that runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from deploy.local_servers import RabbitMQServer, find_program


def rabbitmqctl(server: RabbitMQServer, *arguments: str) -> str:
    """Run it on a server; returns what it prints."""
    program = find_program("rabbitmqctl", server.package, Path("/usr/lib/rabbitmq/bin"))
    command = [str(program), *arguments]
    return subprocess.run(command, env=server.environment(), check=True, capture_output=True, text=True).stdout
