"""The walk of one execution: admission, attempt, retry, completion, event publisher, in this order."""
