"""Installed packages of third parties, made for a test."""

import textwrap
from pathlib import Path

from cab.info import AttentionInfo
from cab.registry import Registry

RECORD = "AttentionInfo(id={id!r}, title='t', formula='f', time='L', memory='L', patterns={{}})"


def entry(name, class_name="Mine", record=RECORD):
    """Source of a module that registers one attention."""
    return (
        "from cab import Attention, AttentionInfo, register_attention\n\n\n"
        f"@register_attention({record.format(id=name)})\n"
        f"class {class_name}(Attention):\n"
        "    def forward(self, q, k, v, context=None):\n"
        "        return v\n"
    )


def install(folder: Path, distribution, points, files, group="cab.attentions"):
    """Lay down a package as an editable install leaves it: its metadata and its source in a folder
    that is on the path.
    """
    metadata = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (metadata / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
    for name, source in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))


def registry():
    """A registry of attentions that has looked at nothing yet."""
    return Registry(
        noun="attention",
        group="cab.attentions",
        decorator="register_attention",
        info_type=AttentionInfo,
        base="cab.attention_contract:Attention",
    )
