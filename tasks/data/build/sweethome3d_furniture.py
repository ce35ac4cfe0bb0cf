"""Builds `sweethome3d-furniture`: points on the surfaces of furniture models, a row per model.

    apt-get download sweethome3d-furniture=1.8-1
    python -m tasks.data.build.sweethome3d_furniture sweethome3d-furniture_1.8-1_all.deb

The package holds five catalogues: zip archives with a Wavefront OBJ file per model, a licence,
and a list of the models in the syntax of Java properties ("name#12=Chair"). It takes some five
minutes, most of them to read the models and to compare them with each other. The package is of
Debian 12; snapshot.debian.org keeps it when a release drops it.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.data.build.near_duplicates import connected, similar_pairs
from tasks.data.build.publication import Description, Product, run
from tasks.data.build.source_archive import SourceArchive
from tasks.data.build.splitting import split_documents

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

POINTS = 2048
GRID = 4096
"""Coordinates are stored as whole numbers of 1 / GRID."""

DESCRIPTION = Description(
    name="sweethome3d-furniture",
    title="Furniture of Sweet Home 3D",
    description=(
        "Surfaces of furniture, persons, plants, vehicles and household things as point clouds. "
        "One row per model: its name and category in the catalogue, a coarse kind by its name, "
        "who made it, under which licence, where that maker published it (empty where the "
        f"catalogue does not say), and {POINTS} points uniform on its surface: {POINTS} x, then "
        f"as many y (up), then z, in units of 1/{GRID}, centred in the bounding box, whose "
        f"longest side is {GRID} units."
    ),
    source=SourceArchive(
        package="sweethome3d-furniture",
        version="1.8-1",
        filename="sweethome3d-furniture_1.8-1_all.deb",
        sha256="3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668",
    ),
    licence="CC-BY-3.0 AND CC-BY-3.0-US AND CC0-1.0",
    attribution=(
        "3D models of Sweet Home 3D 1.8, each by the maker and under the licence that its row and "
        "tasks/data/LICENSES.md name: Emmanuel Puybaret / eTeks and Scopia Visual Interfaces "
        "Systems, s.l. (http://www.scopia.es), Andrew Kator & Jennifer Legaz, Reallusion "
        "(http://www.reallusion.com), and contributors to Blend Swap (http://www.blendswap.com). "
        "Changes: points sampled from the surfaces and scaled; materials left out."
    ),
    split_rule=(
        "By shape, 10 % of the shapes in validation and 15 % in test, in the order of "
        "SHA-256('0:' + id). Shapes of nearly the same geometry stay together."
    ),
    id_column="id",
)

SHARE = {"validation": 0.10, "test": 0.15}


@dataclass(frozen=True)
class _Catalogue:
    """Where the models of a catalogue come from."""

    licence: str
    maker: str | None = None
    """None: every entry names its own."""
    address: str = ""


CATALOGUES = {
    "BlendSwap-CC-0": _Catalogue("CC0-1.0"),
    "BlendSwap-CC-BY": _Catalogue("CC-BY-3.0"),
    "KatorLegaz": _Catalogue("CC-BY-3.0-US", "Andrew Kator & Jennifer Legaz"),
    "Reallusion": _Catalogue("CC-BY-3.0-US", "Reallusion", "http://www.reallusion.com"),
    # The licence asks for both names.
    "Scopia": _Catalogue(
        "CC-BY-3.0",
        "Emmanuel Puybaret / eTeks and Scopia Visual Interfaces Systems, s.l.",
        "http://www.scopia.es",
    ),
}

# What a licence file beside a model may say; another statement is refused.
_STATEMENTS = {
    "CC0-1.0": re.compile(r"Creative Commons Zero"),
    "CC-BY-3.0": re.compile(r"Creative Commons Attribution 3\.0"),
}
_ADDRESS = re.compile(r"http://www\.blendswap\.com/blends/view/\d+")

# A bounding box thinner than this part of its length: banknotes, carpets, markings of a road.
THINNEST = 0.01

# Copies are left out and versions stay in one split, by the ratio of `near_duplicates`.
COPY_RATIO = 1.15
VERSION_RATIO = 1.5
DENSE_POINTS = 8192

# The first that matches a model's category or name (after "/") is its kind.
KINDS = (
    ("door or window", r"^doors and windows/"),
    ("person", r"^characters/.*(male|boy|girl|mannequin)"),
    ("animal", r"^characters/|/deer$"),
    ("car", r"^vehicles/.*(sedan|ford|peugeot|renault|suv|leon|car$|chevrolet|beetle|van$)"),
    ("vehicle", r"^vehicles/|/(motorbike|rowboat|biplane)$"),
    ("lamp", r"^lights/|lantern"),
    ("wall fitting", r"(plug|switch|/wall .*socket)$"),
    ("plant", r"plant|tree|pine\b|palm|maple|poplar|beech|cypress|acacia|ficus|bamboo|cactus"),
    ("plant", r"orchid|tulip|lily|yucca|spathiphyllum|hedge$|/bush|flower|peach blossom"),
    ("sofa", r"sofa|couch"),
    ("bed", r"\bbed$|crib$|/futon$"),
    ("cabinet", r"cabinet|cupboard|wardrobe|dresser|/chest$|shelves|bookcase|locker|/tv stand$"),
    ("sanitary ware", r"washbasin|/(bath|island bath)$|bathtub|bidet|urinal|toilets unit|lavatory"),
    ("sanitary ware", r"/(sink|basin|shower stall|double vanity|vanity)$"),
    ("table", r"\b(table|desk)$|\btable (on|with)\b|desk table"),
    ("chair", r"(?<!wheel)chair|stool|(?<!abdominal )\bbench|\bseat$|lounge$|ottoman|/puff$|bank$"),
    ("appliance", r"oven$|stove$|cooker|cooktop|fridge|refrigerator|freezer|washing machine"),
    ("appliance", r"dryer machine|hood$|microwave|toaster|/mixer$|/blender$|water heater|boiler"),
    ("appliance", r"coffee (machine|maker|brewer)|radiator|air conditioning|\bfan$|furnace"),
    (
        "electronics",
        r"/tv$|tv 16|flat tv|laptop|apple i|\bphone|tablet|camera|speaker|stereo|radio$",
    ),
    ("electronics", r"dvd|playstation|joystick|headphones|printer|mp3|projector|amplifier|cctv"),
)
OTHER = "other"


@dataclass(frozen=True)
class Model:
    """A model of a catalogue."""

    id: str
    name: str
    category: str
    maker: str
    licence: str
    address: str
    corners: Floats
    """(T, 3, 3) triangles by corner and coordinate, y up; centred, longest side 1"""

    @property
    def kind(self) -> str:
        """One of `KINDS`, or `OTHER`."""
        return kind(self.category, self.name)


def build(members: Mapping[str, bytes]) -> Product:
    """One row per model of some thickness, in the order of the ids."""
    folder = "usr/share/sweethome3d/furniture"
    models: dict[str, Model] = {}
    left_out = {}
    for name, catalogue in CATALOGUES.items():
        for model in _models(catalogue, members[f"{folder}/{name}.sh3f"]):
            if np.ptp(model.corners, axis=(0, 1)).min() < THINNEST:
                left_out[model.id] = f"flat: thinner than {THINNEST:.0%} of its longest side"
            else:
                models[model.id] = model
    models = dict(sorted(models.items()))
    pairs = _similar(models)
    versions = _groups([(first, second) for _, first, second in pairs])
    for kept, *copies in _groups([(a, b) for ratio, a, b in pairs if ratio < COPY_RATIO]):
        for copy in copies:
            left_out[copy] = f"the same geometry as {kept}"
            del models[copy]
    kinds = [model.kind for model in models.values()]
    table = pa.table(
        {
            "id": list(models),
            "name": [model.name for model in models.values()],
            "category": [model.category for model in models.values()],
            "kind": kinds,
            "creator": [model.maker for model in models.values()],
            "licence": [model.licence for model in models.values()],
            "url": [model.address for model in models.values()],
            "points": pa.array(
                [stored(sampled(m.corners, m.id, POINTS)) for m in models.values()],
                pa.list_(pa.int16()),
            ),
        }
    )
    return Product(
        table=table,
        splits=split_documents(
            dict.fromkeys(models, 1),
            {split: round(share * len(models)) for split, share in SHARE.items()},
            versions,
        ),
        left_out=dict(sorted(left_out.items())),
        notes=[
            "The points are independent samples of the surface, uniform by area, but stored in "
            "the order of a space-filling curve, which compresses well: shuffle them before "
            "taking a part. Surfaces inside a model are sampled too.",
            "Models stand upright (y is up) and keep the proportions of their files; the "
            "catalogue stretches a few of them. All are scaled to the same length, so the size of "
            "a thing is lost. There are no normals, since the files do not orient all faces.",
            "Shapes are compared by the Chamfer distance of dense samples, in units of that of two "
            "samples of one shape, over quarter turns and mirror images: below "
            f"{COPY_RATIO} only the first is kept, below {VERSION_RATIO} both are in one "
            "split. Simple shapes such as boxes and bottles still resemble each other across "
            "splits.",
            f"The kind comes from the words of the name; {kinds.count(OTHER)} shapes are "
            f"'{OTHER}'. Some models are sets of things, such as a table with its chairs.",
            "A model's licence is the stricter one of its catalogue and of the file beside it.",
        ],
    )


def kind(category: str, name: str) -> str:
    """A coarse class of things, such as "chair", from a name in English."""
    described = f"{category}/{name}".lower()
    return next((found for found, words in KINDS if re.search(words, described)), OTHER)


def triangles(obj: str) -> Floats:
    """(T, 3, 3) corners of the triangles of a Wavefront OBJ file; polygons become fans."""
    points: list[list[float]] = []
    faces: list[tuple[int, int, int]] = []
    for line in obj.splitlines():
        if line.startswith("v "):
            points.append([float(word) for word in line.split()[1:4]])
        elif line.startswith("f "):
            numbers = [int(word.split("/")[0]) for word in line.split()[1:]]
            # Numbers count from one, negative ones back from the last point so far.
            corners = [n - 1 if n > 0 else len(points) + n for n in numbers]
            faces += [(corners[0], *side) for side in itertools.pairwise(corners[1:])]
    return np.array(points)[np.array(faces)]


def centred(corners: Floats) -> Floats:
    """Triangles moved and scaled: bounding box centred on zero, its longest side one."""
    low, high = corners.min((0, 1)), corners.max((0, 1))
    return (corners - (low + high) / 2) / (high - low).max()


def sampled(corners: Floats, seed: str, count: int) -> Floats:
    """(count, 3) independent points, uniform on the triangles by area."""
    digest = hashlib.sha256(seed.encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    sides = corners[:, 1:] - corners[:, :1]
    until = np.cumsum(np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1))
    chosen = np.searchsorted(until, random.random(count) * until[-1], side="right")
    u, v = np.sqrt(random.random((count, 1))), random.random((count, 1))
    a, b, c = np.moveaxis(corners[chosen], 1, 0)
    return (1 - u) * a + u * (1 - v) * b + u * v * c


def stored(points: Floats) -> NDArray[np.int16]:
    """(3 * N,) coordinates by axis in units of 1 / `GRID`, points in the order of a Z curve."""
    whole = np.rint(points * GRID).astype(np.int64)
    shifted = whole + GRID // 2
    place = np.zeros(len(points), dtype=np.int64)
    for bit in range(GRID.bit_length()):
        for axis in range(3):
            place |= (shifted[:, axis] >> bit & 1) << (3 * bit + axis)
    return whole[np.argsort(place, kind="stable")].T.reshape(-1).astype(np.int16)


def _models(catalogue: _Catalogue, content: bytes) -> Iterator[Model]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        listing = archive.read("PluginFurnitureCatalog.properties").decode("latin-1")
        for entry in _entries(listing):
            path = entry["model"].lstrip("/")
            statement = _statement(archive, PurePosixPath(path).parent)
            corners = triangles(archive.read(path).decode("latin-1"))
            if "modelRotation" in entry:
                rotation = [float(number) for number in entry["modelRotation"].split()]
                corners = corners @ np.array(rotation).reshape(3, 3).T
            address = _ADDRESS.search(statement)
            yield Model(
                id=entry["id"],
                name=entry["name"],
                category=entry["category"],
                maker=catalogue.maker or entry["creator"],
                licence=_licence(catalogue.licence, statement, entry["id"]),
                address=address[0] if address else catalogue.address,
                corners=centred(corners),
            )


def _entries(listing: str) -> Iterator[dict[str, str]]:
    entries: dict[int, dict[str, str]] = {}
    for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*)$", listing, re.MULTILINE):
        text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), value.strip())
        entries.setdefault(int(number), {})[key] = text
    for number in sorted(entries):
        yield entries[number]


def _statement(archive: zipfile.ZipFile, folder: PurePosixPath) -> str:
    """Names and texts of the licence files beside a model; nothing where there are none."""
    files = [
        path
        for path in map(PurePosixPath, archive.namelist())
        if path.parent == folder and path.suffix.lower() in (".txt", ".html")
    ]
    texts = (archive.read(str(path)).decode("utf-8", "replace") for path in files)
    return "\n".join([*(path.name for path in files), *texts])


def _licence(catalogue: str, statement: str, model: str) -> str:
    """The stricter licence of two.

    Raises:
        ValueError: the file beside a model states none that is known.
    """
    if not statement:
        return catalogue
    stated = [name for name, words in _STATEMENTS.items() if words.search(statement)]
    if not stated:
        raise ValueError(f"the licence file of {model} states no known licence")
    return max([catalogue, *stated], key=list(_STATEMENTS).index)


def _similar(models: Mapping[str, Model]) -> list[tuple[float, str, str]]:
    """Pairs of models that are versions of each other, by ratio; the earlier id first."""
    first, second = (
        [sampled(model.corners, f"{seed}:{model.id}", DENSE_POINTS) for model in models.values()]
        for seed in ("first", "second")
    )
    ids = list(models)
    return [(r, ids[a], ids[b]) for r, a, b in similar_pairs(first, second, VERSION_RATIO)]


def _groups(pairs: list[tuple[str, str]]) -> list[list[str]]:
    ids = sorted({model for pair in pairs for model in pair})
    number = {model: n for n, model in enumerate(ids)}
    linked = connected([(number[first], number[second]) for first, second in pairs])
    return [[ids[n] for n in group] for group in linked]


if __name__ == "__main__":
    run(DESCRIPTION, build, repeated=("category", "kind", "creator", "licence"))
