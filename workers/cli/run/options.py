"""The options of `dspex run`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from dspex import LM, Configuration, state_of
from dspex.errors import DspexError, SettingsError
from dspex.model import problems
from workers.cli.inputs.reading import Reading


@dataclass(frozen=True)
class RunOptions:
    """The options of the command, as its help describes them."""

    signature: str
    inputs_file: str | None
    pairs: tuple[str, ...]
    adapter_type: str | None
    module: str | None
    model: str | None
    output: Path | None
    output_format: str
    expect: str | None
    retry_failed: bool
    unordered: bool
    with_worker: bool
    run_others: bool = False
    inputs_format: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    columns: tuple[str, ...] = ()
    state: Path | None = None
    extra_outputs: tuple[str, ...] = ()
    tenant: str | None = None
    strict: bool = False

    @property
    def adapter(self) -> str:
        """The adapter: by default `native` if a model is named, else `mock`."""
        return self.adapter_type or ("native" if self.model else "mock")

    @property
    def configuration(self) -> Configuration:
        """The program's configuration.

        Raises:
            DspexError: an option is invalid, or the file of the state is none.
        """
        state = None if self.state is None else state_of(self.state)
        with options_checked():
            lm = LM(model=self.model) if self.model else None
            return Configuration(module=self.module or "Predict", lm=lm, state=state, extra_outputs=self.extra_outputs)

    @property
    def members(self) -> dict[str, Any]:
        """The members of a deployment that were given as options."""
        lm = self.model and {"model": self.model}
        state = self.state and str(Path(self.state).absolute())
        given: dict[str, Any] = {"adapter_type": self.adapter_type, "module": self.module, "lm": lm, "state": state}
        if self.extra_outputs:
            given["extra_outputs"] = list(self.extra_outputs)
        return {name: value for name, value in given.items() if value is not None}

    @property
    def reading(self) -> Reading:
        """How to read the file of inputs.

        Raises:
            SettingsError: an option is invalid.
        """
        columns: dict[str, str] = {}
        for pair in self.columns:
            name, equals, column = pair.partition("=")
            if not equals or not column:
                raise SettingsError(f"--column: {pair!r} is not INPUT=HEADER")
            if name in columns:
                raise SettingsError(f"--column: '{name}' is given twice")
            columns[name] = column
        delimiter = {"\\t": "\t", "tab": "\t"}.get(self.delimiter or "", self.delimiter)
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise SettingsError("--delimiter: give one character, or 'tab'")
        return Reading(self.inputs_format, self.encoding, delimiter, self.sheet, columns)


class RunFailed(DspexError):
    """The program could not be created, no worker runs it, or its results cannot be written."""

    code = "run_failed"


@contextmanager
def options_checked() -> Generator[None]:
    """Report errors of the contract's models as errors of the options with the same names."""
    try:
        yield
    except pydantic.ValidationError as error:
        lines = [f"--{p.field.removesuffix('_type')}: {p.message}" for p in problems(error)]
        raise SettingsError("\n".join(lines)) from None
