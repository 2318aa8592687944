"""What a good answer is."""


def is_short(inputs, prediction) -> float:
    """1 for at most three words."""
    return float(len(prediction.answer.split()) <= 3)
