"""Writes state.json: what DSPy's LabeledFewShot finds in a few labelled questions. It calls no LM.

python examples/rag/optimize.py
"""

from __future__ import annotations

from pathlib import Path

import dspy
from debian_rag import RAG, retrieve

EXAMPLES = (
    ("Which database is for time series?", "time series database metrics", "influxdb is a datastore for time series."),
    ("How do I convert Japanese encodings?", "Japanese encoding convert kanji", "kcc converts Japanese encodings."),
)


def main() -> None:
    """Compile the program and save its state."""
    examples = [
        dspy.Example(
            question=question,
            query=query,
            context=[f"{package}: {description[:200]}" for package, description in retrieve(query, 1)],
            reasoning="The first package is made for this.",
            answer=answer,
        ).with_inputs("question")
        for question, query, answer in EXAMPLES
    ]
    program = dspy.LabeledFewShot(k=2).compile(RAG(), trainset=examples, sample=False)
    program.save(str(Path(__file__).parent / "state.json"))


if __name__ == "__main__":
    main()
