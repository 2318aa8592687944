"""What the project needs around it: local servers for development and tests, system packages, containers."""
