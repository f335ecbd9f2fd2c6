"""What all benchmarks do with their results."""

import json
import pathlib

import rich.console
import rich.table

from vq_keras.training.files import replace_file


def publish(results, path: pathlib.Path | None, *tables: rich.table.Table, width: int | None = None) -> None:
    """Prints the tables, and writes the results as JSON to the path, if there is one."""
    console = rich.console.Console(width=width)
    for table in tables:
        console.print(table)
    if path:
        replace_file(path, (json.dumps(results, indent=2) + "\n").encode())
