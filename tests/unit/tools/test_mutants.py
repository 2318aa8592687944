"""Which tests are run for a change of the code: those in the rooms are among them."""

from __future__ import annotations

import pytest

from deploy import mutants


@pytest.mark.parametrize(
    ("path", "test"),
    [
        ("workers/persistence/group_commit.py", "tests/unit/workers/persistence/test_group_commit.py"),
        ("workers/handlers/signatures.py", "tests/unit/workers/handlers/test_handlers.py"),
        ("store/executions/transitions.py", "tests/contract/store/test_finishes.py"),
        ("messages/dspex/contract/envelope.py", "tests/unit/dspex/contract/test_envelope.py"),
    ],
)
def test_the_tests_of_a_module_are_found(path: str, test: str) -> None:
    files = mutants.test_files()
    imports = {str(file.relative_to(mutants.ROOT)): mutants.imported(file.read_text()) for file in files}
    assert test in mutants.tests_of(path, imports)
