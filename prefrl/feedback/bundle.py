"""Zip files of the one plain kind that we write, read as if an enemy had sent them.

    manifest.json      what it is, and the SHA-256 of every other member
    ...                members with names of a fixed form

Members are stored, not compressed (what is in them is), lie one behind the other without gaps,
and nothing is unpacked to a path that the file names.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Self

from prefrl.errors import UserError
from prefrl.feedback.columns import from_json

MANIFEST = "manifest.json"
NAMES = re.compile(
    r"manifest\.json|README\.txt|(answers|queries)\.jsonl|(segments|pictures)/[0-9a-f]{64}"
)
MAX_FILE_BYTES = 2 * 2**30
MAX_MEMBERS = 40_000
MAX_MEMBER_BYTES = 160 * 2**20
MAX_MANIFEST_BYTES = 8 * 2**20
END = struct.Struct("<4s4H2LH")
END_MAGIC, LOCAL_MAGIC, END64_MAGIC = b"PK\5\6", b"PK\3\4", b"PK\6\7"
LOCAL_BYTES = 30  # before the name
STAMP = (1980, 1, 1, 0, 0, 0)  # a pack says nothing of when it was made


def write_bundle(path: Path, about: dict[str, Any], members: Iterable[tuple[str, bytes]]) -> None:
    """Write a file whole or not at all; one that is there is replaced.

    Args:
        about: what the manifest says besides.
        members: names and contents; one at a time is held.
    """
    started = path.with_name(f"{path.name}.new")
    hashes: dict[str, str] = {}
    try:
        with zipfile.ZipFile(started, "w", zipfile.ZIP_STORED, allowZip64=False) as file:
            for name, data in members:
                hashes[name] = hashlib.sha256(data).hexdigest()
                file.writestr(zipfile.ZipInfo(name, STAMP), data)
            manifest = json.dumps({**about, "members": hashes}, indent=1)
            file.writestr(zipfile.ZipInfo(MANIFEST, STAMP), manifest)
        with started.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(started, path)
    except zipfile.LargeZipFile as error:
        raise UserError(f"{path} would be too large ({error}): pack fewer queries") from error
    finally:
        started.unlink(missing_ok=True)


class Bundle:
    """An open file, its members known, their contents checked as they are read.

    Args:
        kind: what its manifest must call it.

    Raises:
        UserError: it is no such file, or not as we write them.
    """

    def __init__(self, path: Path, *, kind: str) -> None:
        self.path = path
        self._file = _opened(path)
        try:
            self._places = _places(self._file, path)
            self.about = self._manifest(kind)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def names(self, folder: str = "") -> list[str]:
        """Members in a folder, or all, except the manifest."""
        return [name for name in self._hashes if name.startswith(folder)]

    def read(self, name: str) -> bytes:
        """The content of a member.

        Raises:
            UserError: it is missing, or not what the manifest says.
        """
        if name not in self._hashes:
            self.refuse(f"{name} is missing")
        data = self._raw(name)
        if hashlib.sha256(data).hexdigest() != self._hashes[name]:
            self.refuse(f"{name} is not what its manifest says")
        return data

    def refuse(self, what: object) -> NoReturn:
        """Nothing of it is used."""
        _refuse(self.path, what)

    def _raw(self, name: str) -> bytes:
        start, size = self._places[name]
        self._file.seek(start)
        return self._file.read(size)

    def _manifest(self, kind: str) -> dict[str, Any]:
        if MANIFEST not in self._places:
            self.refuse(f"it has no {MANIFEST}")
        if self._places[MANIFEST][1] > MAX_MANIFEST_BYTES:
            self.refuse(f"{MANIFEST} of {self._places[MANIFEST][1]} bytes")
        try:
            about = from_json(self._raw(MANIFEST).decode())
        except ValueError as error:
            self.refuse(f"{MANIFEST}: {error}")
        got = about.get("prefrl") if isinstance(about, dict) else None
        if got != kind:
            self.refuse(f"it is {str(got)[:40]!r}, wanted {kind!r}")
        if about.get("format") != 1:
            self.refuse(f"its format is {str(about.get('format'))[:40]}, wanted 1: update prefrl")
        self._hashes: dict[str, str] = about.pop("members", {})
        if not isinstance(self._hashes, dict):
            self.refuse(f"{MANIFEST} lists no members")
        odd = sorted(({*self._hashes} | {MANIFEST}) ^ {*self._places})
        if odd:
            self.refuse(f"{odd[0][:100]!r} is in one of file and manifest only")
        return about


def _opened(path: Path) -> BinaryIO:
    if path.is_dir():
        raise UserError(f"{path} is a folder, wanted a file; `prefrl pack` makes one of it")
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UserError(f"{path} is larger than {MAX_FILE_BYTES >> 30} GB")
    return path.open("rb")


def _places(file: BinaryIO, path: Path) -> dict[str, tuple[int, int]]:
    """Name -> (where it begins, size) of each member: no gap, no link, no name twice."""
    count, directory = _end(file, path)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError) as error:
        _refuse(path, f"not a zip file that can be read ({error})")
    if len(members) != count:
        _refuse(path, f"it lists {len(members)} members and says {count}")
    places: dict[str, tuple[int, int]] = {}
    at = 0
    for member in members:
        _check_member(path, member)
        if member.filename.lower() in places or member.header_offset != at:
            _refuse(path, f"{member.filename[:100]!r} is there twice, or not where it should be")
        start = at + LOCAL_BYTES + len(member.filename)
        places[member.filename] = (start, member.file_size)
        at = start + member.file_size
    if at != directory:
        _refuse(path, "there is something between its members")
    return places


def _end(file: BinaryIO, path: Path) -> tuple[int, int]:
    """(how many members, where their directory begins), from the last bytes of the file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    begins = file.read(4)
    if size < END.size + LOCAL_BYTES or begins != LOCAL_MAGIC:
        _refuse(path, "not a zip file")
    tail = min(size, END.size + 20)
    file.seek(size - tail)
    ending = file.read(tail)
    magic, disk, disk2, here, count, length, offset, comment = END.unpack(ending[-END.size :])
    plain = magic == END_MAGIC and not (disk or disk2 or comment) and here == count
    if not plain or ending.startswith(END64_MAGIC):
        _refuse(path, "cut short, or with something behind its end")
    if count > MAX_MEMBERS or offset + length != size - END.size:
        _refuse(path, f"{count} members in a directory of {length} bytes")
    if length > count * 200:
        _refuse(path, f"a directory of {length} bytes for {count} members")
    return count, offset


def _check_member(path: Path, member: zipfile.ZipInfo) -> None:
    name = member.filename
    if not NAMES.fullmatch(name) or member.orig_filename != name:
        _refuse(path, f"a member called {name[:100]!r}")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        _refuse(path, f"{name} is not a plain file")
    if member.flag_bits & ~0x800 or member.compress_type != zipfile.ZIP_STORED:
        _refuse(path, f"{name} is encrypted or compressed")
    if member.file_size != member.compress_size or member.file_size > MAX_MEMBER_BYTES:
        _refuse(path, f"{name} of {member.file_size} bytes")
    if member.extra or member.comment:
        _refuse(path, f"{name} has a comment")


def _refuse(path: Path, what: object) -> NoReturn:
    text = " ".join(str(what).split())
    raise UserError(f"{path} is refused, nothing of it is used: {text}")
