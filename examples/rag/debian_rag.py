"""Answers questions about Debian packages: one predictor writes a query, a retriever looks packages up, one answers."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from functools import cache
from pathlib import Path

import dspy

PACKAGES = Path(__file__).parents[1] / "debian_sections" / "packages.jsonl"


class Search(dspy.Signature):
    """Write the words by which to look up Debian packages that answer the question."""

    question: str = dspy.InputField()
    query: str = dspy.OutputField(desc="a few words, most telling first")


class Respond(dspy.Signature):
    """Answer from the descriptions of packages alone. Name the package; say so if none fits."""

    context: list[str] = dspy.InputField(desc="packages, the best match first")
    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="one or two sentences")


class RAG(dspy.Module):
    """Two calls of an LM and a look-up.

    Args:
        k: how many packages the second call sees.
    """

    def __init__(self, k: int = 3) -> None:
        super().__init__()
        self.k = k
        self.search = dspy.Predict(Search)
        self.respond = dspy.ChainOfThought(Respond)

    def forward(self, question: str) -> dspy.Prediction:
        query = self.search(question=question).query
        found = retrieve(query, self.k)
        context = [f"{package}: {description}" for package, description in found]
        answer = self.respond(context=context, question=question).answer
        return dspy.Prediction(answer=answer, packages=[package for package, _ in found])


def retrieve(query: str, k: int) -> list[tuple[str, str]]:
    """The `k` packages whose descriptions share most with the query; rare words count more."""
    packages, frequency = _index()
    words = set(_words(query))

    def score(of: Counter[str]) -> float:
        return sum(math.log(1 + len(packages) / frequency[word]) for word in words & of.keys())

    best = sorted(packages, key=lambda found: (-score(found[2]), found[0]))[:k]
    return [(package, description) for package, description, _ in best]


@cache
def _index() -> tuple[list[tuple[str, str, Counter[str]]], Counter[str]]:
    packages = []
    frequency: Counter[str] = Counter()
    for line in PACKAGES.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        words = Counter(_words(f"{row['package']} {row['description']}"))
        packages.append((row["package"], row["description"], words))
        frequency.update(words.keys())
    return packages, frequency


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]{3,}", text.lower())
