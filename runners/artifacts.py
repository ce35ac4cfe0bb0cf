"""Artifacts on their way from a worker process to the store."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from cab.artifact import Artifact


def to_json(artifact: Artifact) -> dict[str, str]:
    """Fields that JSON can hold."""
    return {
        "name": artifact.name,
        "suffix": artifact.suffix,
        "caption": artifact.caption,
        "content": base64.b64encode(artifact.content).decode("ascii"),
    }


def from_json(fields: Mapping[str, str]) -> Artifact:
    """The inverse of `to_json`."""
    content = base64.b64decode(fields["content"])
    return Artifact(fields["name"], fields["suffix"], fields["caption"], content)
