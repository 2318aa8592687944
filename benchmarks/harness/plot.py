"""Figures, as SVG: the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness.stacks import OURS

OURS_COLOUR = "#1b6ca8"
OTHERS_COLOUR = "#b8c4ce"


def profile(milliseconds: Mapping[str, float], path: Path) -> None:
    """CPU of one execution, by folder."""
    shown = sorted(((name, ms) for name, ms in milliseconds.items() if ms > 0), key=lambda item: item[1])[-14:]
    colours = [OURS_COLOUR if name in OURS else OTHERS_COLOUR for name, _ in shown]
    figure, (axes,) = _figure([len(shown)])
    _bars(axes, [name for name, _ in shown], [ms for _, ms in shown], colours, "worker CPU of one execution, ms")
    _save(figure, path)


def throughput(charts: Mapping[str, Mapping[str, float]], ours: str, path: Path) -> None:
    """Jobs a second: charts by title, in each the systems, the fastest on top."""
    if not charts:
        return
    figure, found = _figure([len(values) for values in charts.values()])
    for axes, (title, values) in zip(found, charts.items(), strict=True):
        ordered = sorted(values.items(), key=lambda item: item[1])
        colours = [OURS_COLOUR if name == ours else OTHERS_COLOUR for name, _ in ordered]
        _bars(axes, [name for name, _ in ordered], [value for _, value in ordered], colours, title)
    _save(figure, path)


def _figure(rows: list[int]):  # type: ignore[no-untyped-def]  # matplotlib is there for benchmarks only
    import matplotlib as mpl  # pyright: ignore[reportMissingImports]

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "dspex", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot  # pyright: ignore[reportMissingImports]

    size = (8, sum(0.7 + 0.27 * count for count in rows))
    figure, axes = pyplot.subplots(len(rows), 1, figsize=size, height_ratios=rows, squeeze=False)
    return figure, axes[:, 0]


def _bars(axes, names, values, colours, title) -> None:  # type: ignore[no-untyped-def]
    drawn = axes.barh(names, values, color=colours)
    axes.bar_label(drawn, fmt=lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.2f}", padding=3)
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)


def _save(figure, path: Path) -> None:  # type: ignore[no-untyped-def]
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
