"""The prompt adapter `baml`: types are shown in the short form of BAML, the answer is a JSON object."""

from __future__ import annotations

from dspy.adapters.baml_adapter import BAMLAdapter

from adapters.native.prompts.guards import Guarded
from adapters.native.prompts.readings import by_object, by_sections


class Baml(Guarded, BAMLAdapter):  # type: ignore[misc]  # DSPy has no type information
    """`BAMLAdapter` of DSPy, read as `Json`. It refuses types that contain themselves."""

    readings = (by_object, by_sections)
