"""Tools of an agent, of which one waits for others."""

import asyncio

import dspy

STOCK = {"toner": 3, "paper": 40}


def stock_of(item: str) -> int:
    """How many there are of an item."""
    return STOCK[item]


async def price_of(item: str, currency: str = "EUR") -> str:
    """What an item costs."""
    await asyncio.sleep(0)
    return f"12.50 {currency}"


class Buyer(dspy.Module):
    """An agent that is a part of a module of one's own, with an async tool."""

    def __init__(self, max_iters: int = 3):
        super().__init__()
        self.agent = dspy.ReAct("question -> answer", tools=[price_of], max_iters=max_iters)

    async def aforward(self, question: str):
        return await self.agent.acall(question=question)
