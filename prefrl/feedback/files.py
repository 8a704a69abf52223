"""The table of answers as a file: CSV, JSON lines, or Parquet by pyarrow (`prefrl[parquet]`).

Files come from outside: sizes are bounded, nothing in them is code, and what is wrong is named
by its line.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from prefrl.errors import UserError
from prefrl.feedback.columns import (
    COLUMNS,
    Row,
    check_names,
    checked,
    from_cell,
    from_json,
    to_cell,
)

FORMATS = ("csv", "jsonl", "parquet")
MAX_LINE = 2**20  # characters
MAX_ROWS = 2_000_000
MAX_FILE_BYTES = 2 * 2**30
BATCH = 1024
Numbered = tuple[int, Row]
"""A row and its line; in Parquet, its number."""


def write_table(rows: Iterable[Row], path: Path, *, to: str) -> int:
    """Write a file that was not there; returns how many rows it has.

    Raises:
        UserError: it is there, cannot be written, or pyarrow is missing.
    """
    if to == "parquet":
        _pyarrow()
    if path.exists():
        raise UserError(f"{path} exists: remove it, or name another file with --out")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is no directory: make it, or name another file with --out")
    started = path.with_name(f"{path.name}.new")
    try:
        count = {"csv": _write_csv, "jsonl": _write_jsonl, "parquet": _write_parquet}[to](
            rows, started
        )
        os.replace(started, path)
    finally:
        started.unlink(missing_ok=True)
    return count


def read_table(path: Path) -> Iterator[Numbered]:
    """The rows of a file, whose kind its name tells; columns that it lacks are blank.

    Raises:
        UserError: it is none of ours, or something in it is wrong; its line is named.
    """
    to = path.suffix.lower().removeprefix(".")
    if to not in FORMATS:
        raise UserError(f"{path}: got a name in {path.suffix!r}, wanted .csv, .jsonl or .parquet")
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UserError(f"{path} is larger than {MAX_FILE_BYTES >> 30} GB: split it")
    read = {"csv": _read_csv, "jsonl": _read_jsonl, "parquet": _read_parquet}[to]
    rows = 0
    for rows, numbered in enumerate(read(path), start=1):
        if rows > MAX_ROWS:
            raise UserError(f"{path} has more than {MAX_ROWS:,} rows: split it")
        yield numbered
    if not rows:
        raise UserError(f"{path} has no rows")


def at(path: Path, line: int, what: object) -> UserError:
    """The error that something in a line is wrong.

    >>> str(at(Path("a.csv"), 3, "rating: got 12, wanted 1 to 9"))
    'a.csv:3: rating: got 12, wanted 1 to 9'
    """
    return UserError(f"{path}:{line}: {what}")


# ---- CSV ------------------------------------------------------------------------------


def _write_csv(rows: Iterable[Row], path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            count += 1
            writer.writerow([to_cell(name, row[name]) for name in COLUMNS])
    return count


def _read_csv(path: Path) -> Iterator[Numbered]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader, line = csv.reader(_lines(file, path), strict=True), 1
        try:
            names = next(reader, [])
            check_names(names)
            line = reader.line_num + 1
            for cells in reader:
                if cells:
                    yield line, _csv_row(names, cells)
                line = reader.line_num + 1
        except (ValueError, csv.Error) as error:
            if isinstance(error, UserError):
                raise
            if isinstance(error, UnicodeDecodeError):  # text is decoded ahead of the rows
                line = _line_not_utf8(path)
            raise at(path, line, _words(error)) from error


def _line_not_utf8(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


def _csv_row(names: list[str], cells: list[str]) -> Row:
    if len(cells) != len(names):
        raise ValueError(f"got {len(cells)} cells, wanted {len(names)} as in the first line")
    return _whole({n: from_cell(n, cell) for n, cell in zip(names, cells, strict=True)})


# ---- JSON lines -----------------------------------------------------------------------


def _write_jsonl(rows: Iterable[Row], path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            count += 1
            file.write(json.dumps(row, allow_nan=False) + "\n")
    return count


def _read_jsonl(path: Path) -> Iterator[Numbered]:
    with path.open("rb") as file:
        yield from json_rows(iter(lambda: file.readline(MAX_LINE), b""), path)


def json_rows(lines: Iterable[bytes], path: Path) -> Iterator[Numbered]:
    """The rows in lines of JSON; empty ones are passed over.

    Raises:
        UserError: a line is no row; its number is named.
    """
    for number, line in enumerate(lines, start=1):
        if len(line) >= MAX_LINE:
            raise at(path, number, f"longer than {MAX_LINE} bytes")
        try:
            if line.strip():
                yield number, json_row(line.decode())
        except ValueError as error:
            raise at(path, number, _words(error)) from error


def json_row(text: str) -> Row:
    """A row from one line of JSON.

    Raises:
        ValueError: it is none.
    """
    row = from_json(text)
    if not isinstance(row, dict):
        raise ValueError(f"got {str(row)[:80]!r}, wanted a JSON object")
    check_names(list(row))
    return _whole({name: checked(name, value) for name, value in row.items()})


def _whole(row: Row) -> Row:
    return {name: row.get(name, checked(name, None)) for name in COLUMNS}


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    number = 0
    while text := file.readline(MAX_LINE):
        number += 1
        if len(text) == MAX_LINE:
            raise at(path, number, f"longer than {MAX_LINE} characters")
        yield text


def _words(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 ({error.reason})"
    return str(error)


# ---- Parquet --------------------------------------------------------------------------


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise UserError(
            "Parquet needs pyarrow: pip install 'prefrl[parquet]', or use csv or jsonl"
        ) from None
    return pyarrow


def _schema() -> Any:
    pa = _pyarrow()
    plain = {"text": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    ints = pa.list_(pa.int64())
    listed = {"texts": pa.list_(pa.string()), "ints": ints, "groups": pa.list_(ints)}
    return pa.schema([(name, {**plain, **listed}[c.kind]) for name, c in COLUMNS.items()])


def _write_parquet(rows: Iterable[Row], path: Path) -> int:
    pa, count, left = _pyarrow(), 0, iter(rows)
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, _schema()) as writer:
        while batch := list(islice(left, BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema=_schema()))
            count += len(batch)
    return count


def _read_parquet(path: Path) -> Iterator[Numbered]:
    pa = _pyarrow()
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(
            path, thrift_string_size_limit=2**22, thrift_container_size_limit=2**20
        ) as file:
            _check_parquet(file, pa)
            for batch in file.iter_batches(batch_size=BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, _whole({n: checked(n, value) for n, value in row.items()})
    except (ValueError, pa.ArrowException, OSError, MemoryError) as error:
        if isinstance(error, UserError):
            raise
        raise at(path, number, _words(error).splitlines()[0][:200]) from error


def _check_parquet(file: Any, pa: Any) -> None:
    """Before anything of it is unpacked."""
    check_names(file.schema_arrow.names)
    for field in file.schema_arrow:
        if isinstance(field.type, pa.BaseExtensionType):
            raise ValueError(f"column {field.name!r} of type {field.type}, wanted plain values")
    about = file.metadata
    size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    if about.num_rows > MAX_ROWS or size > MAX_FILE_BYTES:
        raise ValueError(f"{about.num_rows:,} rows of {size:,} bytes: split it")
