"""Measures the running product: `python -m bench`, or `make bench`. About six minutes on two cores."""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.e2e.support import Place

from .draft import measure_draft
from .load import measure_load
from .report import Row, machine, markdown, verdict, write_into
from .scale import measure_scale
from .server import measure_calls, measure_generate, measure_http, measure_orphans, measure_recovery, measure_start

GROUPS: dict[str, Callable[[Place], Iterator[Row]]] = {
    "start": measure_start,
    "generate": measure_generate,
    "calls": measure_calls,
    "http": measure_http,
    "draft": measure_draft,
    "scale": measure_scale,
    "load": measure_load,
    "recovery": measure_recovery,
    "orphans": measure_orphans,
}


def main() -> int:
    """Measure everything; the exit code tells whether every bar is kept."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the product against its bars.")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), help="measure a part")
    parser.add_argument("--json", type=Path, default=Path("out/bench.json"), metavar="FILE", help="the rows, as JSON")
    parser.add_argument("--document", type=Path, metavar="FILE", help="also write the table between its marks there")
    options = parser.parse_args()
    console = Console(width=150)
    about = machine() | {"load average before": _load()}
    began = time.monotonic()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="ad-agent-bench-") as folder:
        for name in options.only:
            place = Place(Path(folder) / name / "data", Path(folder) / "pictures")
            place.pictures.mkdir(exist_ok=True)
            place.data.parent.mkdir()
            for row in GROUPS[name](place):
                rows.append(row)
                console.print(f"[dim]{row.what}: {row.figure}[/]", highlight=False)
    about |= {"load average after": _load(), "took": f"{time.monotonic() - began:.0f} s"}
    table = Table("what", "measured", "bar", "kept")
    for row in rows:
        table.add_row(row.what, row.figure, row.bar, f"[red]{verdict(row)}[/]" if row.ok is False else verdict(row))
    console.print(table)
    for name, fact in about.items():
        console.print(f"{name}: {fact}", highlight=False)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": about, "rows": [asdict(row) for row in rows]}, indent=2) + "\n")
    if options.document is not None:
        write_into(options.document, markdown(rows, about))
    return int(any(row.ok is False for row in rows))


def _load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


if __name__ == "__main__":
    sys.exit(main())
