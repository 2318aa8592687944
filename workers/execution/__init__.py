"""The course of one execution: admission, attempt, retry, completion and event publisher, in this order."""
