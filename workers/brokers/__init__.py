"""The brokers: RabbitMQ, and the one that lives in this process. Both are Dramatiq brokers."""
