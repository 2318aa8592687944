"""The brokers: RabbitMQ and the in-process broker. Both are Dramatiq brokers."""
