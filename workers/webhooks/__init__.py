"""Webhooks: sends events to HTTP endpoints. Only `deliverer` and `notices` use the database and the broker.

`addresses` decides where webhooks may go, and `network` enforces it for every connection. `sender` makes one attempt,
`attempt` is its result, and `schedule` decides what follows. `circuit` prevents a dead endpoint from blocking others.
"""
