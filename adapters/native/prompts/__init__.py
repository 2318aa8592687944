"""The formats of prompts and answers: DSPy's prompt adapters, with our own guards and parsers."""
