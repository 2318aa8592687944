"""Modules of one's own: classes as people have them, with more than one predictor and a retriever."""

from __future__ import annotations

import sys
from typing import Any

import dspy

PASSAGES = {
    "apt": "apt installs packages from archives.",
    "dpkg": "dpkg installs a package from a file.",
    "ssh": "ssh opens a shell on another machine.",
}


def retrieve(query: str, k: int) -> list[str]:
    """The k passages that share the most words with a query."""
    words = set(query.lower().split())
    return sorted(PASSAGES.values(), key=lambda text: -len(words & set(text.lower().split())))[:k]


class RAG(dspy.Module):  # type: ignore[misc]  # DSPy has no type information
    """Asks for a query, retrieves passages, and answers from them."""

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.k = k
        self.search = dspy.Predict("question -> query")
        self.respond = dspy.ChainOfThought("context: list[str], question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        """One LM call for the query, one for the answer."""
        query = self.search(question=question).query
        context = retrieve(query, self.k)
        answer = self.respond(context=context, question=question).answer
        return dspy.Prediction(answer=answer, context=context)


class Grounded(dspy.Module):  # type: ignore[misc]  # DSPy has no type information
    """Answers any signature from passages."""

    def __init__(self, signature: Any, k: int) -> None:
        super().__init__()
        self.k = k
        self.respond = dspy.Predict(signature.prepend("context", dspy.InputField(), list[str]))

    def forward(self, **inputs: Any) -> dspy.Prediction:
        """One LM call."""
        return self.respond(context=retrieve(" ".join(map(str, inputs.values())), self.k), **inputs)


def grounded(signature: Any, k: int = 1) -> dspy.Module:
    """A module that is made for the program's signature."""
    return Grounded(signature, k)


class Broken(dspy.Module):  # type: ignore[misc]  # DSPy has no type information
    """Fails in the way that its input names, and quotes it."""

    def forward(self, question: str) -> Any:
        """Never answers."""
        match question:
            case "exit":
                sys.exit(3)
            case "connection":
                raise ConnectionError(f"no retriever for {question}")
            case "nothing":
                return dspy.Prediction(other="x")
            case "text":
                return "an answer"
            case _:
                raise ValueError(f"cannot answer {question}")


def not_a_module(k: int = 1) -> str:
    """Makes something else."""
    return "x" * k
