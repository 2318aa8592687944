"""Webhooks: sends events to the HTTP endpoints of others. Nothing in here knows the database or the broker.

`addresses` says where they may go and `network` holds every connection to it, `sender` makes one attempt, `attempt` is
what comes of it, `schedule` what happens next, `circuit` keeps a dead endpoint from holding up the others.
"""
