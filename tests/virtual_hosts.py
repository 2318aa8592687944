"""A RabbitMQ with many virtual hosts: to start one costs seconds, and whoever has a host of its own meets nobody."""

from __future__ import annotations

import base64
import copy
import hashlib
import itertools
import json
from pathlib import Path
from typing import Self

from deploy.local_servers import RabbitMQServer
from tests.rabbitmqctl import rabbitmqctl

NUMBER = 10
"""So many are there from the start; more are made when they are asked for, which takes longer."""
SALT = b"salt"


class RabbitMQWithHosts(RabbitMQServer):
    """RabbitMQ with virtual hosts that are open to the user `guest`.

    Attributes:
        host: the virtual host of `url`.
    """

    host = "%2F"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._numbers = itertools.count()

    @property
    def url(self) -> str:
        """The URL of the virtual host."""
        return super().url.replace("%2F", self.host)

    def prepare(self) -> None:
        """Write the configuration, and the definitions that it loads."""
        super().prepare()
        hosts = [f"test-{number}" for number in range(NUMBER)]
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        definitions = {
            "users": [{"name": "guest", "password_hash": password_hash("guest"), "tags": "administrator"}],
            "vhosts": [{"name": name} for name in ("/", *hosts)],
            "permissions": [{"user": "guest", "vhost": name} | everything for name in ("/", *hosts)],
        }
        self._write("definitions.json", json.dumps(definitions))
        configuration = self.directory / "rabbitmq.conf"
        loading = f"load_definitions = {self.directory}/definitions.json\n"
        configuration.write_text(configuration.read_text(encoding="utf-8") + loading, encoding="utf-8")

    def at_another_host(self) -> Self:
        """The same server, at a virtual host that nobody has used."""
        number = next(self._numbers)
        there = copy.copy(self)
        there.host = f"test-{number}"
        if number >= NUMBER:
            rabbitmqctl(self, "add_vhost", there.host)
            rabbitmqctl(self, "set_permissions", "-p", there.host, "guest", ".*", ".*", ".*")
        return there


def password_hash(password: str) -> str:
    """A password as RabbitMQ keeps it: https://www.rabbitmq.com/docs/passwords#computing-password-hash."""
    return base64.b64encode(SALT + hashlib.sha256(SALT + password.encode()).digest()).decode()
