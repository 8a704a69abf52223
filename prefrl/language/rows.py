"""Rows of files and datasets by their columns, and what is wrong with them, said by number."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prefrl.errors import UserError, nearest

Row = Mapping[str, Any]
Source = str | Path | Iterable[Row]
Columns = Sequence[tuple[str, ...]]
"""Sets of columns, one of which a row must have."""
T = TypeVar("T")


def converted(source: Source, columns: Columns, one: Callable[[Row], list[T]]) -> list[T]:
    """What `by_row` gives, all rows together."""
    return [example for row in by_row(source, columns, one) for example in row]


def by_row(source: Source, columns: Columns, one: Callable[[Row], list[T]]) -> list[list[T]]:
    """All rows through `one`, whose complaints get the row's number."""
    where = source if isinstance(source, str | Path) else "the dataset"
    found: list[list[T]] = []
    if isinstance(source, Mapping):
        raise UserError(
            f"the dataset: got a mapping of {', '.join(map(str, source))}; wanted one of its parts"
        )
    for number, row in enumerate(_rows_of(source)):
        if not isinstance(row, Mapping):
            raise UserError(
                f"{where}, row {number}: got {type(row).__name__}, wanted columns by name"
            )
        present = {k: v for k, v in row.items() if v is not None}
        if not any(set(wanted) <= set(present) for wanted in columns):
            raise UserError(f"{where}, row {number}: {_wrong_columns(present, columns)}")
        try:
            found.append(one(present))
        except UserError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{where}, row {number}: {error}") from error
    if not found:
        raise UserError(f"{where}: got no rows, wanted at least one")
    return found


def _rows_of(source: Source) -> Iterable[Row]:
    """The rows of a JSON-lines or Parquet file, or of a dataset.

    Raises:
        UserError: no such file, another kind of file, or a line that is no JSON object.
    """
    if not isinstance(source, str | Path):
        return source
    path = Path(source)
    if not path.is_file():
        raise UserError(f"{path}: no such file; wanted .jsonl or .parquet")
    if path.suffix in (".jsonl", ".json"):
        return _json_lines(path)
    if path.suffix == ".parquet":
        return _parquet(path)
    raise UserError(f"{path}: got {path.suffix or 'no suffix'}, wanted .jsonl or .parquet")


def _json_lines(path: Path) -> list[Row]:
    rows: list[Row] = []
    for number, read in enumerate(path.read_bytes().split(b"\n"), 1):
        if not read.strip():
            continue
        try:
            line = read.decode()
            row = json.loads(line)
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}, line {number}: got the byte 0x{read[error.start]:02x}, wanted UTF-8"
            ) from error
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: got {line[:40]!r}, wanted a JSON object")
        rows.append(row)
    return rows


def _parquet(path: Path) -> list[Row]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path}: Parquet needs pyarrow: pip install pyarrow") from error
    try:
        rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: not Parquet ({error})") from error
    return rows


def _wrong_columns(row: Row, columns: Columns) -> str:
    best = max(columns, key=lambda wanted: (len(set(wanted) & set(row)), -len(wanted)))
    missing = [name for name in best if name not in row]
    hint = nearest(missing[0], row)
    alternatives = "; or ".join(", ".join(wanted) for wanted in columns)
    return (
        f"got columns {', '.join(sorted(row)) or 'none'}; wanted {alternatives}"
        f"{f' ({missing[0]}: ' + hint + ')' if hint else ''}"
    )
