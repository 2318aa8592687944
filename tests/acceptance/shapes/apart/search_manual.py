"""A module that is installed in an environment of its own, and not on the worker."""

import dspy
from manual_index import PASSAGES


class SearchManual(dspy.Module):
    """Answers from the passages whose word is in the question."""

    def __init__(self):
        super().__init__()
        self.respond = dspy.Predict("context: list[str], question -> answer")

    def forward(self, question: str):
        context = [text for word, text in PASSAGES.items() if word in question.lower()]
        return self.respond(context=context, question=question)
