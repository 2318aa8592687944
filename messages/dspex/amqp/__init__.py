"""RabbitMQ: connections, publishing with confirms, reply queues, and the names of the topology."""
