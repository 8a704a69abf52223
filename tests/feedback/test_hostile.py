"""Files that an enemy might send in the place of a pack or of answers.

Each is refused in one line; nothing is written beside the run, nothing in it changes, and what
is not a plain zip of ours is not even looked into.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
import stat
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from prefrl.cli import main
from prefrl.errors import UserError
from prefrl.feedback import Comparison, Desk, FeedbackStore, encode_segment, schema
from prefrl.feedback.codec import MAGIC
from prefrl.feedback.packs import answers_path, make_pack
from prefrl.feedback.unpacking import pack_answers, unpack
from tests.feedback.helpers import segment
from tests.feedback.test_packs import a_run

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, its pack for ann, and her answers: `run`, `ann.zip`, `ann-answers.zip`."""
    folder = tmp_path_factory.mktemp("made")
    with a_run(folder / "run") as store:
        make_pack(store, folder / "ann.zip", count=100, rater="ann", seconds=60.0)
    directory = unpack(folder / "ann.zip")
    with FeedbackStore.open(directory) as there, Desk(there, rater="ann") as desk:
        for _ in range(3):
            desk.submit(desk.take(1)[0], Comparison(choice="first"), None)
        pack_answers(there, answers_path(directory))
    return folder


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist() if name != "manifest.json"}


def manifest(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as file:
        about: dict[str, Any] = json.loads(file.read("manifest.json"))
    return about


def zipped(about: dict[str, Any] | bytes, content: Members, **how: Any) -> bytes:
    """A zip whose manifest lists its members rightly, written as `how` says."""
    if isinstance(about, dict):
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
        about = json.dumps({**about, "members": about.get("members", hashes)}).encode()
    box = io.BytesIO()
    with zipfile.ZipFile(box, "w", how.pop("compression", zipfile.ZIP_STORED)) as file:
        for name, data in {**content, "manifest.json": about}.items():
            info = zipfile.ZipInfo(name)
            for field, value in how.items():
                setattr(info, field, value)
            file.writestr(info, data, compress_type=file.compression)
    return box.getvalue()


def pfseg(header: dict[str, Any], body: bytes) -> bytes:
    """A segment with a sound checksum and any header."""
    text = json.dumps(header).encode()
    rest = struct.pack("<I", len(text)) + text + zstandard.compress(body)
    return MAGIC + hashlib.sha256(rest).digest() + rest


def database(path: Path, *statements: str, version: int | None = None) -> bytes:
    """A `labels.db` of ours, with more in it."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous=OFF")
    for statement in (s for step in schema.LABELS.migrations for s in step):
        connection.execute(statement)
    for statement in statements:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id={schema.LABELS.application_id}")
    connection.execute(f"PRAGMA user_version={version or len(schema.LABELS.migrations)}")
    connection.commit()
    connection.close()
    return path.read_bytes()


# ---- in the place of answers ------------------------------------------------------------

Making = Callable[[Path, Path], bytes]
"""(answers, folder) -> what is sent instead."""


def with_row(**changes: Any) -> Making:
    """The last answer says something else."""

    def make(path: Path, folder: Path) -> bytes:
        rows = [json.loads(line) for line in members(path)["answers.jsonl"].splitlines()]
        rows[-1] |= changes
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        return zipped(manifest_only(path), {"answers.jsonl": lines})

    return make


def with_text(line: bytes) -> Making:
    """A line more."""
    return lambda path, folder: zipped(
        manifest_only(path), {"answers.jsonl": members(path)["answers.jsonl"] + line}
    )


def with_member(name: str, data: bytes = b"x") -> Making:
    """A file more, in the manifest too."""
    return lambda path, folder: zipped(manifest_only(path), {**members(path), name: data})


def with_about(**changes: Any) -> Making:
    """The manifest says something else."""
    return lambda path, folder: zipped({**manifest_only(path), **changes}, members(path))


def how(**changes: Any) -> Making:
    """Written in another way."""
    return lambda path, folder: zipped(manifest_only(path), members(path), **changes)


def manifest_only(path: Path) -> dict[str, Any]:
    return {name: value for name, value in manifest(path).items() if name != "members"}


def other_repeat(path: Path, folder: Path) -> bytes:
    """A repeat of a packed query that asks of its segments the other way round."""
    row = json.loads(members(path)["answers.jsonl"].splitlines()[-1])
    about = {"purpose": "repeat", "repeat_of": row["query"], "reason": "repeat", "query": ""}
    return with_row(**about, segments=row["segments"][::-1])(path, folder)


def twice(path: Path, folder: Path) -> bytes:
    """One name for two members."""
    out = folder / "twice.zip"
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as file:
        warnings.simplefilter("ignore")  # of the name
        for name, data in [*members(path).items(), ("answers.jsonl", b"{}")]:
            file.writestr(zipfile.ZipInfo(name), data)
        file.writestr(zipfile.ZipInfo("manifest.json"), json.dumps(manifest(path)))
    return out.read_bytes()


def overlapping(path: Path, folder: Path) -> bytes:
    """Two members that share their bytes, as a bomb's do."""
    data = bytearray(with_member("README.txt", members(path)["answers.jsonl"])(path, folder))
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    data[second + 42 : second + 46] = struct.pack("<I", 0)
    return bytes(data)


def patched(offset: int, value: bytes, magic: bytes = b"PK\1\2") -> Making:
    """Bytes of the first directory entry, or of the end, are others."""

    def make(path: Path, folder: Path) -> bytes:
        data = bytearray(path.read_bytes())
        start = data.rindex(magic) if magic == b"PK\5\6" else data.index(magic)
        data[start + offset : start + offset + len(value)] = value
        return bytes(data)

    return make


def flipped(path: Path, folder: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[data.index(b'"first"') + 1] ^= 1
    return bytes(data)


def inverted(path: Path, folder: Path) -> bytes:
    """Other answers under the same checksums of zip and manifest."""
    text = members(path)["answers.jsonl"].replace(b'"first"', b'"secon"')
    return zipped(manifest(path), {"answers.jsonl": text})


def zip64(path: Path, folder: Path) -> bytes:
    data = path.read_bytes()
    return data[:-22] + b"PK\6\7" + b"\0" * 16 + data[-22:]


def deflated_bomb(path: Path, folder: Path) -> bytes:
    zeros = {"answers.jsonl": b" " * 5_000_000}
    return zipped(manifest_only(path), zeros, compression=zipfile.ZIP_DEFLATED)


def nested(path: Path, folder: Path) -> bytes:
    return with_member("more.zip", path.read_bytes())(path, folder)


def a_database(*statements: str, version: int | None = None) -> Making:
    return lambda path, folder: database(folder / "evil.db", *statements, version=version)


def malformed(path: Path, folder: Path) -> bytes:
    data = database(folder / "evil.db")
    return data[:4096] + os.urandom(len(data) - 4096)


def tar(path: Path, folder: Path) -> bytes:
    box = io.BytesIO()
    with tarfile.open(fileobj=box, mode="w") as file:
        info = tarfile.TarInfo("../../evil")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(info)
    return box.getvalue()


LINK, FIFO, DEVICE = (kind << 16 for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR))
SQL = "x'); DROP TABLE label; --"
ANSWERS: dict[str, tuple[Making, str]] = {
    "empty": (lambda path, folder: b"", "not a zip file"),
    "not a zip": (lambda path, folder: b"\x80\x04\x95pickle" * 99, "not a zip file"),
    "a tar with a link": (tar, "not a zip file"),
    "cut short": (lambda path, folder: path.read_bytes()[:-30], "cut short"),
    "cut in the middle": (lambda path, folder: path.read_bytes()[:900], "cut short"),
    "something before it": (lambda path, folder: b"#!/bin/sh\n" + path.read_bytes(), "not a zip"),
    "something behind it": (lambda path, folder: path.read_bytes() + b"x" * 40, "cut short"),
    "a comment": (patched(20, b"\5\0", b"PK\5\6"), "cut short"),
    "zip64": (zip64, "cut short"),
    "several disks": (patched(4, b"\1\0", b"PK\5\6"), "cut short"),
    "another count": (patched(8, b"\3\0\3\0", b"PK\5\6"), "it lists 2 members and says 3"),
    "a huge directory": (patched(12, b"\xff\xff\xff\x7f", b"PK\5\6"), "in a directory of"),
    "too many members": (patched(8, b"\x41\x9c" * 2, b"PK\5\6"), "40001 members"),
    "a path upwards": (with_member("../evil"), "a member called '../evil'"),
    "an absolute path": (with_member("/tmp/evil"), "a member called '/tmp/evil'"),
    "a drive": (with_member("C:\\evil"), "a member called"),
    "backslashes": (with_member("..\\evil"), "a member called"),
    "a NUL in a name": (patched(46, b"answers\0jsonl"), "a member called"),
    "a long name": (with_member("a" * 60_000), "for 3 members"),
    "a name that is no ASCII": (with_member("änswers.jsonl"), "a member called"),
    "a name that is no UTF-8": (patched(46, b"\xff\xfe"), "a member called"),
    "a broken name said to be UTF-8": (patched(8, b"\0\x08" + b"\0" * 36 + b"\xff"), "read"),
    "another case": (with_member("Answers.jsonl"), "a member called"),
    "a name twice": (twice, "is there twice, or not where it should be"),
    "members that overlap": (overlapping, "is there twice, or not where it should be"),
    "a link": (how(external_attr=LINK, create_system=3), "is not a plain file"),
    "a pipe": (how(external_attr=FIFO, create_system=3), "is not a plain file"),
    "a device": (how(external_attr=DEVICE, create_system=3), "is not a plain file"),
    "encrypted": (patched(8, b"\1\0"), "encrypted or compressed"),
    "compressed": (how(compression=zipfile.ZIP_DEFLATED), "encrypted or compressed"),
    "a bomb": (deflated_bomb, "encrypted or compressed"),
    "a size that lies": (patched(20, b"\xff\xff\xff\x7f" * 2), "bytes"),
    "an unknown version": (patched(6, b"\xff\xff"), "not a zip file that can be read"),
    "an extra field": (how(extra=b"\x01\x00\x04\x00abcd"), "has a comment"),
    "a member's comment": (how(comment=b"hello"), "has a comment"),
    "an archive inside": (nested, "a member called 'more.zip'"),
    "a pickle": (with_member("answers.pkl"), "a member called 'answers.pkl'"),
    "a pickled array": (with_member("clip.npy"), "a member called 'clip.npy'"),
    "a database inside": (with_member("labels.db"), "a member called 'labels.db'"),
    "a trigger": (
        a_database("CREATE TRIGGER t AFTER INSERT ON label BEGIN DELETE FROM query; END"),
        "not a zip file",
    ),
    "a view": (a_database("CREATE VIEW v AS SELECT 1"), "not a zip file"),
    "a newer database": (a_database(version=99), "not a zip file"),
    "malformed pages": (malformed, "not a zip file"),
    "a flipped bit": (flipped, "is not what its manifest says"),
    "other answers under old hashes": (inverted, "is not what its manifest says"),
    "a file that is not listed": (
        lambda path, folder: zipped(manifest(path), {**members(path), "README.txt": b""}),
        "in one of file and manifest only",
    ),
    "a listed file that is missing": (
        lambda path, folder: zipped(manifest(path), {}), "in one of file and manifest only"
    ),
    "a question's file": (with_member("queries.jsonl"), "wanted answers.jsonl alone"),
    "no manifest": (
        lambda path, folder: path.read_bytes().replace(b"manifest.json", b"answers.jsonl"),
        "is there twice",
    ),
    "a manifest that is no JSON": (
        lambda path, folder: zipped(b"{", members(path)), "manifest.json: "
    ),
    "a manifest with NaN": (
        lambda path, folder: zipped(b'{"format": NaN}', members(path)), "got NaN"
    ),
    "a deep manifest": (
        lambda path, folder: zipped(b"[" * 10**6, members(path)), "nested too deeply"
    ),
    "a huge manifest": (
        lambda path, folder: zipped(b" " * (9 * 2**20), members(path)), "manifest.json of 9437184"
    ),
    "a manifest of a list": (lambda path, folder: zipped(b"[]", members(path)), "it is 'None'"),
    "members that are a list": (with_about(members=[]), "lists no members"),
    "a pack in the place of answers": (with_about(prefrl="rating pack"), "wanted 'rating answers'"),
    "a newer format": (with_about(format=2), "its format is 2, wanted 1"),
    "another pack": (with_about(pack=0, id="0" * 64), "no pack 0000000000000000 was made of"),
    "an id that is none": (with_about(id="x' OR 1=1 --"), "wanted 64 hexadecimal digits"),
    "another task": (with_about(task="Pong"), "was made of"),
    "a huge seed": (with_about(seed=10**400), "wanted 0 or more"),
    "another rater": (with_row(rater="eve"), "the pack was for 'ann'"),
    "a rater that steers the terminal": (with_row(rater="a\x1b]0;x\x07"), "can be printed"),
    "a query that was not packed": (
        with_row(query="0" * 64, asked_at_step=None), "was not in the pack"
    ),
    "a query made up": (with_row(query="", asked_at_step=99), "was not in the pack"),
    "a repeat of what was not packed": (
        with_row(query="", purpose="repeat", repeat_of="0" * 64), "was not in the pack"
    ),
    "a repeat that is none": (other_repeat, "was not in the pack"),
    "segments made up": (with_row(query="", segments=["0" * 64, "1" * 64]), "was not in the pack"),
    "half a character in an id": (with_row(answer="\ud800"), "can be printed"),
    "an id with SQL": (with_row(query=SQL, asked_at_step=None), "wanted 64 hexadecimal digits"),
    "an answer that is no text": (with_row(choice=["first"]), "choice: got"),
    "a far future": (with_row(time=4e12), "the rater's clock was wrong"),
    "negative seconds": (with_row(shown=[0, 1], response_seconds=-1.0, key="", loops=1.0, speed=1.0,
                                  first_frame_seconds=0.0), "wanted 0 or more"),
    "infinity": (with_text(b'{"time": 1e999}\n'), "wanted a finite number"),
    "NaN": (with_text(b'{"time": NaN}\n'), "got NaN, wanted a finite number"),
    "deep JSON": (with_text(b"[" * 200_000 + b"\n"), "nested too deeply"),
    "a long line": (with_text(b'{"note": "' + b"a" * 2**20 + b'"}\n'), "longer than"),
    "no UTF-8": (with_text(b'{"rater": "\xff"}\n'), "not UTF-8"),
    "an unknown column": (with_text(b'{"__class__": "os.system"}\n'), "unknown column"),
}  # fmt: skip


def all_of(folder: Path) -> dict[str, bytes]:
    """Every file, but for locks and journals, which are empty."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.suffix not in (".lock",) and not p.name.endswith("-journal")
    }


@pytest.mark.parametrize("name", ANSWERS)
def test_hostile_answers_change_nothing(
    made: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, said = ANSWERS[name]
    (tmp_path / "hostile.zip").write_bytes(make(made / "ann-answers.zip", tmp_path))
    before, outside = all_of(made), all_of(tmp_path)
    capsys.readouterr()
    assert main(["merge", str(made / "run"), str(tmp_path / "hostile.zip")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert line.isprintable()
    assert all_of(made) == before
    assert all_of(tmp_path) == outside


def test_the_answers_that_the_hostile_ones_are_made_of_are_sound(
    made: Path, tmp_path: Path
) -> None:
    """Else every file above might be refused for one reason."""
    path = made / "ann-answers.zip"
    for make in (how(), with_row(), with_about()):
        (tmp_path / "fine.zip").write_bytes(make(path, tmp_path))
        assert main(["merge", str(made / "run"), str(tmp_path / "fine.zip")]) == 0


# ---- in the place of a pack -------------------------------------------------------------


def some_segment(path: Path) -> str:
    return next(name for name in members(path) if name.startswith("segments/"))


def with_segment(data: bytes) -> Making:
    """One segment's file holds something else."""
    return lambda path, folder: zipped(
        manifest_only(path), {**members(path), some_segment(path): data}
    )


def with_queries(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Making:
    """The queries are others."""

    def make(path: Path, folder: Path) -> bytes:
        rows = [json.loads(line) for line in members(path)["queries.jsonl"].splitlines()]
        lines = "".join(json.dumps(row) + "\n" for row in change(rows)).encode()
        return zipped(manifest_only(path), {**members(path), "queries.jsonl": lines})

    return make


def without(name: str) -> Making:
    return lambda path, folder: zipped(
        manifest_only(path), {n: d for n, d in members(path).items() if not n.startswith(name)}
    )


def spec(shape: list[Any], dtype: str = "<f4", stack: int = 0) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "stack": stack}


def header(**arrays: Any) -> dict[str, Any]:
    plain = {"observations": spec([2, 2]), "actions": spec([2], "<i8")}
    plain |= {"clip": spec([0], "|u1"), "true_reward": spec([2], "<f8")}
    return {"fields": {"ended": False, "provenance": {}}, "arrays": {**plain, **arrays}}


PACKS: dict[str, tuple[Making, str]] = {
    "a segment under another's name": (
        with_segment(encode_segment(segment((9.0,)))),
        "is not the segment that it is called after",
    ),
    "a segment that is a pickle": (with_segment(b"\x80\x04."), "do not begin like a segment"),
    "a segment with a wrong checksum": (with_segment(MAGIC + b"\0" * 99), "checksum"),
    "a huge shape": (
        with_segment(pfseg(header(observations=spec([2**27, 2**27])), b"")), "bytes declared"
    ),
    "a negative shape": (with_segment(pfseg(header(observations=spec([-1, 2])), b"")), "shape"),
    "a shape of objects": (
        with_segment(pfseg(header(observations=spec([2, 2], "|O")), b"")), "dtype '|O'"
    ),
    "many dimensions": (with_segment(pfseg(header(observations=spec([1] * 99)), b"")), "shape"),
    "a bomb in a segment": (
        with_segment(pfseg(header(observations=spec([2, 2])), b"\0" * 10**8)), "wanted 48"
    ),
    "NaN in a segment's rewards": (
        with_segment(pfseg(header(), np.zeros(4, "<f4").tobytes() + b"\xff" * 32)), "provenance"
    ),
    "a segment too few": (without("segments/"), "are not those of its queries"),
    "no queries": (without("queries"), "queries.jsonl is missing"),
    "empty queries": (with_queries(lambda rows: []), "wanted whole queries"),
    "a query twice": (with_queries(lambda rows: [*rows, rows[0]]), "a query twice"),
    "a query with an infinite priority": (
        with_queries(lambda rows: [{**rows[0], "priority": 1e308 * 10}]), "got Infinity"
    ),
    "a query about a path": (
        with_queries(lambda rows: [{**rows[0], "query": "", "segments": ["../x", "/etc"]}]),
        "64 hexadecimal digits",
    ),
    "a query with a negative need": (
        with_queries(lambda rows: [{**rows[0], "need": -1}, *rows[1:]]), "wanted 1 or more"
    ),
    "pictures of nothing": (
        lambda path, folder: zipped(
            manifest_only(path),
            {**members(path), "pictures/" + "0" * 64: next(
                d for n, d in members(path).items() if n.startswith("pictures/"))},
        ),
        "is of no segment",
    ),
    "instructions that steer the terminal": (
        with_about(instructions={"version": 1, "text": "\x1b[2J"}), "can be printed"
    ),
    "a version that is none": (
        with_about(instructions={"version": -1, "text": ""}), "got version -1"
    ),
    "no instructions": (with_about(instructions=None), "wanted a version and a text"),
    "a task with a path": (with_about(task="\n../x"), "task: got"),
    "answers in the place of a pack": (with_about(prefrl="rating answers"), "'rating pack'"),
    "a path upwards": (with_member("../evil"), "a member called '../evil'"),
    "a database inside": (with_member("labels.db"), "a member called 'labels.db'"),
    "a link": (how(external_attr=LINK, create_system=3), "is not a plain file"),
    "a bomb": (deflated_bomb, "encrypted or compressed"),
    "not a zip": (lambda path, folder: b"\x80\x04\x95pickle" * 99, "not a zip file"),
}  # fmt: skip


@pytest.mark.parametrize("name", PACKS)
def test_a_hostile_pack_is_not_unpacked(
    made: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, said = PACKS[name]
    (tmp_path / "hostile.zip").write_bytes(make(made / "ann.zip", tmp_path))
    capsys.readouterr()
    assert main(["rate", str(tmp_path / "hostile.zip")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert [p.name for p in tmp_path.iterdir()] == ["hostile.zip"]


def test_the_pack_that_the_hostile_ones_are_made_of_is_sound(made: Path, tmp_path: Path) -> None:
    for i, make in enumerate((how(), with_queries(lambda rows: rows), with_about())):
        path = tmp_path / f"fine{i}.zip"
        path.write_bytes(make(made / "ann.zip", tmp_path))
        assert (unpack(path) / "labels.db").is_file()


def test_a_huge_file_is_refused_unread(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "huge.zip"
    with path.open("wb") as file:
        file.truncate(2 * 2**30 + 1)  # a hole
    with pytest.raises(UserError, match="larger than 2 GB"):
        unpack(path)
