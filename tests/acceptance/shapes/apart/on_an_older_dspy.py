"""A program that was written for another DSPy than the worker's."""

import dspy


class AnswerOnAnOlderDSPy(dspy.Module):
    """Tells which DSPy it runs on."""

    def __init__(self):
        super().__init__()
        self.answer = dspy.ChainOfThought("question -> answer")

    def forward(self, question: str):
        found = self.answer(question=question)
        return dspy.Prediction(answer=found.answer, dspy_version=dspy.__version__)
