"""Modules of one's own: classes as people have them, with more than one predictor and a retriever."""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy

from .code import count_letters

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


class Panel(dspy.Module):  # type: ignore[misc]  # DSPy has no type information
    """Asks several at once, in tasks, and has a judge choose."""

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.size = size
        self.member = dspy.ChainOfThought("question, member: int -> opinion")
        self.judge = dspy.Predict("question, opinions: list[str] -> answer")

    async def aforward(self, question: str) -> dspy.Prediction:
        """One LM call for each member at once, one for the judge."""
        asked = [self.member.acall(question=question, member=number) for number in range(self.size)]
        opinions = [found.opinion for found in await asyncio.gather(*asked)]
        return await self.judge.acall(question=question, opinions=opinions)


class Parallel(dspy.Module):  # type: ignore[misc]  # DSPy has no type information
    """Asks several at once, in threads of DSPy's."""

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.size = size
        self.member = dspy.Predict("question, member: int -> opinion")

    def forward(self, question: str) -> dspy.Prediction:
        """One LM call for each member at once."""
        asked = [(self.member, {"question": question, "member": number}) for number in range(self.size)]
        found = dspy.Parallel(num_threads=4, disable_progress_bar=True)(asked)
        return dspy.Prediction(answer=" ".join(each.opinion for each in found))


class Agent(dspy.Module):  # type: ignore[misc]  # DSPy has no type information
    """An agent with an async tool."""

    def __init__(self) -> None:
        super().__init__()
        signature: Any = "question -> answer"
        self.agent = dspy.ReAct(signature, tools=[count_letters], max_iters=3)

    async def aforward(self, question: str) -> dspy.Prediction:
        """As many LM calls as the agent likes."""
        return await self.agent.acall(question=question)


class Stray(dspy.Module):  # type: ignore[misc]  # DSPy has no type information
    """Calls its LM in a thread that knows nothing of the run."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        """No LM call."""
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self.ask, question=question, lm=dspy.settings.lm).result()


class OfItsOwn(dspy.Module):  # type: ignore[misc]  # DSPy has no type information
    """Makes an LM of its own, at an address that is its parameter."""

    def __init__(self, api_base: str) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")
        self.ask.lm = dspy.LM("openai/gpt-4o-mini", api_base=api_base, api_key="its-own", cache=False)

    def forward(self, question: str) -> dspy.Prediction:
        """One LM call."""
        return self.ask(question=question)


class Copies(dspy.Module):  # type: ignore[misc]  # DSPy has no type information
    """Copies itself and its LM, as DSPy's searches do."""

    def __init__(self) -> None:
        super().__init__()
        self.ask = dspy.Predict("question -> answer")

    def forward(self, question: str) -> dspy.Prediction:
        """Two LM calls, by a copy with an LM of its own."""
        copied = self.ask.deepcopy()
        copied(question=question)
        copied.set_lm(dspy.settings.lm.copy(temperature=0.9))
        return copied(question=question)


class Environment(dspy.Module):  # type: ignore[misc]  # DSPy has no type information
    """Tells the names of the keys in its environment."""

    def forward(self, question: str) -> dspy.Prediction:
        """No LM call."""
        return dspy.Prediction(answer=" ".join(sorted(name for name in os.environ if name.endswith("_API_KEY"))))
