"""Signatures: typed inputs and outputs as data; how to write, read and compare them.

| to learn | open |
|---|---|
| what a signature is | `signature.py`, `field.py`, `names.py` |
| what a type is | `types.py`, `scalar_types.py`, `formats.py`; types with names: `references.py`, `definitions.py`; images, audio, files and turns: `media.py`, `attachments.py` |
| how a value is checked, and what DSPy is shown | `annotations.py`, `unions.py`, `classes.py` |
| how one is written: the arrow form | `arrow.py` |
| how one is read from a class or an object of DSPy | `dspy_class.py`, `named_classes.py`, `own_rules.py`, `dspy_values.py` |
| how one is read from a JSON Schema of others | `as_it_comes.py`, `schema_reader.py`, `merged_schemas.py`, `schema_words.py` |
| how two versions are compared | `compatibility.py`, `differences.py`, `inclusion.py` |
| what it is as JSON Schema, and how large | `documents.py`, `measures.py` |
"""  # noqa: E501  a table
