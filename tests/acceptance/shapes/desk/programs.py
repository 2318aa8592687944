"""Modules of one's own."""

import asyncio

import dspy

MANUAL = {
    "paper": "Tray 2 takes A4 paper only.",
    "toner": "Toner is in room 114.",
    "vpn": "The VPN needs the new certificate.",
}


def look_up(query: str, k: int) -> list[str]:
    """The passages of the manual that have most to do with the query."""
    words = set(query.lower().split())
    return sorted(MANUAL.values(), key=lambda text: -len(words & set(text.lower().strip(".").split())))[:k]


class AnswerFromManual(dspy.Module):
    """Two predictors and a retriever."""

    signature = "question -> answer"

    def __init__(self, k: int = 1):
        super().__init__()
        self.k = k
        self.search = dspy.Predict("question -> query")
        self.respond = dspy.ChainOfThought("context: list[str], question -> answer")

    def forward(self, question: str):
        context = look_up(self.search(question=question).query, self.k)
        answer = self.respond(context=context, question=question)
        return dspy.Prediction(answer=answer.answer, reasoning=answer.reasoning, sources=context)


class WithRules(dspy.Module):
    """Any signature, with the rules of the house beside the inputs."""

    def __init__(self, signature, rules: list[str]):
        super().__init__()
        self.rules = rules
        self.ask = dspy.ChainOfThought(signature.prepend("rules", dspy.InputField(), list[str]))

    def forward(self, **inputs):
        return self.ask(rules=self.rules, **inputs)


def with_rules(signature, rules: list[str]):
    """A factory: it is given the program's signature and parameters."""
    return WithRules(signature, rules)


class Panel(dspy.Module):
    """Several answer at once, in an event loop, and a judge chooses."""

    def __init__(self, size: int = 3):
        super().__init__()
        self.size = size
        self.member = dspy.Predict("question, member: int -> opinion")
        self.judge = dspy.Predict("question, opinions: list[str] -> answer")

    async def aforward(self, question: str):
        members = [self.member.acall(question=question, member=number) for number in range(self.size)]
        opinions = [found.opinion for found in await asyncio.gather(*members)]
        return await self.judge.acall(question=question, opinions=opinions)


class Checked(dspy.Module):
    """One writes, another judges, with an LM of its own."""

    def __init__(self):
        super().__init__()
        self.write = dspy.ChainOfThought("question -> answer")
        self.judge = dspy.Predict("question, answer -> is_right: bool")

    def forward(self, question: str):
        answer = self.write(question=question).answer
        is_right = self.judge(question=question, answer=answer).is_right
        return dspy.Prediction(answer=answer, is_right=is_right)


class Translations(dspy.Module):
    """Many at once, in the threads of `dspy.Parallel`."""

    def __init__(self):
        super().__init__()
        self.translate = dspy.Predict("text, language -> translation")

    def forward(self, text: str, languages: list[str]):
        calls = [(self.translate, {"text": text, "language": language}) for language in languages]
        found = dspy.Parallel(num_threads=2, disable_progress_bar=True)(calls)
        by_language = {language: each.translation for language, each in zip(languages, found, strict=True)}
        return dspy.Prediction(translations=by_language)
