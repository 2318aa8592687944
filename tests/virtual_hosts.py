"""A RabbitMQ with many virtual hosts: to start one costs seconds, and whoever has a host of its own meets nobody."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator

from deploy.local_servers import RabbitMQServer

NUMBER = 30
SALT = b"salt"


class RabbitMQWithHosts(RabbitMQServer):
    """RabbitMQ with the virtual hosts `test-0`, `test-1`, ..., each open to the user `guest`."""

    def prepare(self) -> None:
        """Write the configuration, and the definitions that it loads."""
        super().prepare()
        names = ["/", *self._hosts()]
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        definitions = {
            "users": [{"name": "guest", "password_hash": password_hash("guest"), "tags": "administrator"}],
            "vhosts": [{"name": name} for name in names],
            "permissions": [{"user": "guest", "vhost": name} | everything for name in names],
        }
        self._write("definitions.json", json.dumps(definitions))
        configuration = self.directory / "rabbitmq.conf"
        loading = f"load_definitions = {self.directory}/definitions.json\n"
        configuration.write_text(configuration.read_text(encoding="utf-8") + loading, encoding="utf-8")

    def urls(self) -> Iterator[str]:
        """The URLs of the virtual hosts, each once."""
        for name in self._hosts():
            yield self.url.replace("%2F", name)

    def _hosts(self) -> list[str]:
        return [f"test-{number}" for number in range(NUMBER)]


def password_hash(password: str) -> str:
    """A password as RabbitMQ keeps it: https://www.rabbitmq.com/docs/passwords#computing-password-hash."""
    return base64.b64encode(SALT + hashlib.sha256(SALT + password.encode()).digest()).decode()
