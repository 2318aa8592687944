"""Principals, authorization, and the checks of messages."""
