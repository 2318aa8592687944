"""A format of prompts of one's own."""

import dspy


class Terse(dspy.ChatAdapter):
    """As the chat format is, with one more order."""

    def format_task_description(self, signature):
        return super().format_task_description(signature) + "\nNo word too many."
