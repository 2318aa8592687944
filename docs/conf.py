"""The documentation as a site: `make docs`. Pages are read where they are, so that their links work in both places."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Annotated, get_origin

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "DSPex"
author = "the authors of DSPex"
release = importlib.metadata.version("dspex")

# The pages. Whatever else a link leads to is a file of the repository: it has to be there, and is copied beside them.
root_doc = "README"
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/decisions/*.md",
    "docs/api/*.rst",
    "examples/*/README.md",
    "messages/README.md",
    "benchmarks/results/*.md",
]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
nitpicky = True

# The reference. Types of others are shown by name: nothing is fetched, here or by who reads.
default_role = "literal"  # `code`, as in the docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": "type, model_config"}
napoleon_use_ivar = True
python_use_unqualified_type_names = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!(?:dspex|adapters|store|workers)\.).*"),  # of others
    ("py:.*", r"dspex\.model\..*"),  # bases of models
    ("py:.*", r"dspex\.client\.(async_verbs|(execution|external|webhook)_verbs|pending)\..*"),  # bases of the client
    ("py:.*", r"dspex\.contract\.results\.Page\[\w+\]"),
    ("py:.*", r"dspex\.errors\._Problems|workers\.settings\.Settings"),
    ("py:.*", r"[\w.]+\.(Model|View|Result|Data|Annotated|Context|Item)"),  # type variables, and names of unions
]

# How it looks: Furo, whose fonts and scripts are files of its own.
html_theme = "furo"
html_title = f"DSPex {release}"
html_copy_source = False
html_show_sphinx = False
html_additional_pages = {"index": "index.html"}
templates_path = ["site/templates"]
html_static_path = ["site/static"]
html_css_files = ["wide.css"]
highlight_language = "none"
suppress_warnings = ["misc.highlighting_failure"]  # SQL for psql, with its own commands in it

CONTENTS = """
```{toctree}
:hidden:
:caption: Use

docs/README
docs/files
docs/programs
docs/deploy
docs/shapes
examples/rag/README
docs/types
docs/client
docs/queues
docs/messages
examples/bare_producers/README
docs/blobs
docs/outbox
docs/webhooks
examples/webhook_receiver/README
examples/fastapi_service/README
docs/testing
docs/plugins
examples/debian_sections/README
```

```{toctree}
:hidden:
:caption: Run

docs/operations
docs/settings
docs/security
docs/permissions
docs/isolation
```

```{toctree}
:hidden:
:caption: Rely on

docs/promises
docs/errors
docs/comparison
benchmarks/results/README
benchmarks/results/profile
```

```{toctree}
:hidden:
:caption: Reference

docs/api/index
The distribution <messages/README>
```

```{toctree}
:hidden:
:caption: Change

DESIGN
docs/decisions/README
CONTRIBUTING
CHANGELOG
```
"""


DECISIONS = """
```{toctree}
:hidden:
:glob:

0*
```
"""


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:  # noqa: ARG001  as Sphinx calls it
    """Give the README and the index of decisions their tables of contents, which GitHub has no use for."""
    if page == root_doc:
        source[0] += CONTENTS
    elif page == "docs/decisions/README":
        source[0] += DECISIONS


def from_markdown(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:  # noqa: ARG001
    """Read docstrings as they are written: code is indented after a colon and an empty line, and tables are of bars."""
    # Napoleon takes what is before a colon in a first line for a type.
    read = [""] if what in ("attribute", "data", "property") else []
    for number, line in enumerate(lines):
        before, after = lines[number - 1] if number else "", [*lines[number + 1 : number + 3], "", ""]
        if line.startswith("|") and not before.startswith("|"):
            read += ["::", ""]
        if before.startswith("|") and not line.startswith("|"):
            read.append("")
        code = line.endswith(":") and not after[0].strip() and after[1].startswith("    ")
        read.append(f"{line}:" if code else f"    {line}" if line.startswith("|") else line)
    lines[:] = read


def without_aliases(app: Sphinx, what: str, name: str, thing: object, skip: bool, options: object) -> bool | None:  # noqa: ARG001
    """Leave out names of annotated types: what is in their annotations is for pydantic."""
    return True if get_origin(thing) is Annotated else None


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_contents)
    app.connect("autodoc-process-docstring", from_markdown, priority=400)  # before Napoleon
    app.connect("autodoc-skip-member", without_aliases)
