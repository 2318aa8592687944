"""Infrastructure of the project: local servers for development and tests, system packages, containers."""
