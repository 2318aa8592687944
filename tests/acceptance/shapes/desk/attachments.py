"""What customers send with a ticket, and what was said before."""

import dspy


class NamePart(dspy.Signature):
    """Name the part in the photo."""

    photo: dspy.Image = dspy.InputField()
    others: list[dspy.Image] = dspy.InputField(desc="parts that it may be")
    part: str = dspy.OutputField()


class Transcribe(dspy.Signature):
    """Write what is said."""

    call: dspy.Audio = dspy.InputField()
    text: str = dspy.OutputField()


class ReadDocument(dspy.Signature):
    """Find the number of the contract."""

    document: dspy.File = dspy.InputField()
    number: int = dspy.OutputField()


class Chat(dspy.Signature):
    """Answer the customer."""

    history: dspy.History = dspy.InputField()
    question: str = dspy.InputField()
    answer: str = dspy.OutputField()
