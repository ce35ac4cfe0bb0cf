"""The furniture: three splits without copies, points as described, a build from a made package."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tasks.data import shapes as shapes_module
from tasks.data.build import sweethome3d_furniture as furniture
from tasks.data.build.near_duplicates import POSES, connected, descriptor, similar_pairs
from tasks.data.build.publication import DATA_FOLDER, Product
from tasks.data.embedded import SPLITS, dataset
from tasks.data.shapes import ShapeCorpus, ShapeSet, load_shapes

Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def corpus() -> ShapeCorpus:
    return load_shapes()


def parts(corpus: ShapeCorpus) -> dict[str, ShapeSet]:
    return {split: getattr(corpus, split) for split in SPLITS}


# The embedded data


def test_splits_are_those_of_the_manifest(corpus: ShapeCorpus) -> None:
    data = dataset("sweethome3d-furniture")
    assert {split: len(part) for split, part in parts(corpus).items()} == {
        "train": 581,
        "validation": 77,
        "test": 116,
    }
    for split, part in parts(corpus).items():
        assert part.ids == data.split(split)
        assert len(part.names) == len(part.categories) == len(part.kinds) == len(part)
    members = [member for part in parts(corpus).values() for member in part.ids]
    assert len(set(members)) == len(members) == data.rows
    assert not set(members) & set(data.left_out)


def test_shapes_fill_the_cube_and_are_centred(corpus: ShapeCorpus) -> None:
    """As far as a sample of the surface can tell: it rarely has the outermost point."""
    for part in parts(corpus).values():
        points = part.points
        assert points.dtype == torch.float32
        assert points.shape == (len(part), 2048, 3)
        assert points.is_contiguous()
        assert points.abs().max() <= 0.5
        low, high = points.amin(1), points.amax(1)
        assert (high - low).amax(1).min() > 0.85
        assert (high - low).amin(1).min() > 0.005
        longest = (high - low).argmax(1, keepdim=True)
        middle = ((high + low) / 2).gather(1, longest)
        assert middle.abs().max() < 0.075


def test_leading_points_are_spread_over_the_shape(corpus: ShapeCorpus) -> None:
    """An eighth of the points leaves no part of a shape out; stored order would."""
    points = corpus.test.points.numpy()
    for cloud in points[::10]:
        near = cKDTree(cloud[:256]).query(cloud)[0].mean()
        stored = np.empty_like(cloud)
        stored[shapes_module._spread(2048).numpy()] = cloud
        assert near < 0.06
        assert cKDTree(stored[:256]).query(cloud)[0].mean() > 3 * near


def test_spread_visits_every_point_once() -> None:
    for count in (1, 2, 7, 100, 2048):
        assert sorted(shapes_module._spread(count).tolist()) == list(range(count))


def test_no_shape_is_nearly_the_same_as_one_of_another_split(corpus: ShapeCorpus) -> None:
    """Two halves of a shape's points tell how far samples of one surface lie apart."""
    points = torch.cat([part.points for part in parts(corpus).values()]).double().numpy()
    split = np.repeat(np.arange(3), [len(part) for part in parts(corpus).values()])
    near = cKDTree(np.stack([descriptor(cloud) for cloud in points])).query_pairs(
        0.015 * descriptor(points[0]).size ** 0.5
    )
    across = [pair for pair in near if split[pair[0]] != split[pair[1]]]
    assert across
    copies = [pair for pair in across if likeness(points[pair[0]], points[pair[1]]) < 1.15]
    assert copies == []
    # The same shape, sampled anew and turned, would have been found.
    for cloud in points[::100]:
        assert likeness(cloud[::2], cloud[1::2] @ POSES[3]) < 1.15


def likeness(one: Floats, other: Floats) -> float:
    """Chamfer distance by that of two samples of a shape; 2 stands for anything larger."""
    halves = [(one[::2], one[1::2]), (other[::2], other[1::2])]
    first, second = zip(*halves, strict=True)
    found = similar_pairs(first, second, 2.0)
    return found[0][0] if found else 2.0


def test_known_shapes_are_where_they_belong(corpus: ShapeCorpus) -> None:
    """A table's top is a large share of its surface and high up; most persons stand."""
    everything = [
        (name, kind, cloud)
        for part in parts(corpus).values()
        for name, kind, cloud in zip(part.names, part.kinds, part.points, strict=True)
    ]
    kinds = Counter(kind for _, kind, _ in everything)
    known = {kind for kind, _ in furniture.KINDS} | {furniture.OTHER}
    assert set(kinds) == known
    assert min(kinds.values()) >= 5
    assert all(set(part.kinds) >= {"chair", "table", "lamp"} for part in parts(corpus).values())
    persons = [cloud for _, kind, cloud in everything if kind == "person"]
    tall = [cloud[:, 1].amax() - cloud[:, 1].amin() > 0.9 for cloud in persons]
    assert sum(tall) > 0.8 * len(tall)  # the others sit or lie
    tables = [cloud for name, _, cloud in everything if name.lower() == "coffee table"]
    assert tables
    assert all(cloud[:, 1].mean() > 0.05 for cloud in tables)


def test_every_maker_and_licence_is_named(corpus: ShapeCorpus) -> None:
    data = dataset("sweethome3d-furniture")
    rows = data.table().drop_columns(["points"]).to_pylist()
    licences = (DATA_FOLDER / "LICENSES.md").read_text(encoding="utf-8")
    assert {row["licence"] for row in rows} == set(data.licence.split(" AND "))
    for row in rows:
        assert row["creator"]
        if "Blend Swap" not in row["id"]:
            assert row["creator"] in data.attribution
            assert row["creator"] in licences


# The build


BOX = [(0, 0, 0), (4, 0, 0), (4, 2, 0), (0, 2, 0), (0, 0, 1), (4, 0, 1), (4, 2, 1), (0, 2, 1)]
SIDES = [(1, 2, 3, 4), (5, 6, 7, 8), (1, 2, 6, 5), (4, 3, 7, 8), (1, 4, 8, 5), (2, 3, 7, 6)]
PYRAMID = [(0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1), (0.5, 2, 0.5)]
SLOPES = [(1, 2, 3, 4), (1, 2, 5), (2, 3, 5), (3, 4, 5), (4, 1, 5)]


def obj(corners: Sequence[tuple[float, ...]], faces: Sequence[tuple[int, ...]]) -> str:
    lines = [f"v {' '.join(map(str, corner))}" for corner in corners]
    return "\n".join([*lines, *(f"f {' '.join(f'{n}//1' for n in face)}" for face in faces)])


def catalogue(entries: list[dict[str, str]], files: Mapping[str, str]) -> bytes:
    listing = "\n".join(
        f"{key}#{number}={value}"
        for number, entry in enumerate(entries, start=1)
        for key, value in entry.items()
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", f"# made\n{listing}\n")
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def entry(identifier: str, name: str, model: str, **more: str) -> dict[str, str]:
    return {"id": identifier, "name": name, "category": "Kitchen", "model": f"/{model}", **more}


def package(scopia: bytes) -> dict[str, bytes]:
    """The files of the Debian package that the build reads: one catalogue made, three of one."""
    members = {
        name: catalogue(
            [entry(f"{name}#only", "Vase", "vase.obj", creator="Somebody")],
            {"vase.obj": obj([(x * (1 + i), y, z) for x, y, z in PYRAMID], SLOPES)},
        )
        for i, name in enumerate(furniture.CATALOGUES)
    }
    members["Scopia"] = scopia
    folder = "usr/share/sweethome3d/furniture"
    return {f"{folder}/{name}.sh3f": content for name, content in members.items()}


@pytest.fixture(scope="module")
def product() -> Product:
    turned = [(z, y, x) for x, y, z in BOX]
    wide = [(7 * x, y, z) for x, y, z in PYRAMID]
    scopia = catalogue(
        [
            entry("Scopia#box", "Cabinet", "box/box.obj"),
            entry("Scopia#same", "Cupboard", "same/same.obj"),
            entry("Scopia#rug", "Rug", "rug.obj"),
            entry("Scopia#tent", "Caf\\u00e9 chair", "tent/tent.obj"),
            entry("Scopia#slanted", "Thing", "tent/tent.obj", modelRotation="0 1 0 -1 0 0 0 0 1"),
        ],
        {
            "box/box.obj": obj(BOX, SIDES),
            "same/same.obj": obj(turned, SIDES),
            "same/licence.txt": "Creative Commons Zero",
            "rug.obj": obj([(x, y / 1000, z) for x, y, z in BOX], SIDES),
            "tent/tent.obj": obj(wide, SLOPES),
            "tent/README.html": "Creative Commons Attribution 3.0, "
            "http://www.blendswap.com/blends/view/12345",
        },
    )
    return furniture.build(package(scopia))


def rows(product: Product) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in product.table.to_pylist()}


def test_flat_things_and_copies_are_left_out(product: Product) -> None:
    assert product.left_out == {
        "Scopia#rug": "flat: thinner than 1% of its longest side",
        "Scopia#same": "the same geometry as Scopia#box",
    }
    found = set(rows(product))
    assert found == {
        "BlendSwap-CC-0#only",
        "BlendSwap-CC-BY#only",
        "KatorLegaz#only",
        "Reallusion#only",
        "Scopia#box",
        "Scopia#slanted",
        "Scopia#tent",
    } - set(product.left_out)
    dealt = list(itertools.chain(*product.splits.values()))
    assert sorted(dealt) == sorted(found)
    assert len(product.splits["test"]) == round(0.15 * len(found))


def test_rows_say_what_the_catalogue_says(product: Product) -> None:
    found = rows(product)
    assert found["Scopia#tent"]["name"] == "Café chair"
    assert [found[i]["kind"] for i in ("Scopia#tent", "Scopia#box", "Scopia#slanted")] == [
        "chair",
        "cabinet",
        furniture.OTHER,
    ]
    assert found["Scopia#tent"]["url"] == "http://www.blendswap.com/blends/view/12345"
    assert found["Scopia#box"]["url"] == "http://www.scopia.es"
    assert found["BlendSwap-CC-0#only"]["creator"] == "Somebody"
    assert found["BlendSwap-CC-0#only"]["licence"] == "CC0-1.0"
    assert found["KatorLegaz#only"]["licence"] == "CC-BY-3.0-US"


def points_of(row: Mapping[str, Any]) -> Floats:
    values = np.array(row["points"], dtype=np.float64)
    return values.reshape(3, -1).T / furniture.GRID


def test_points_lie_on_the_surface(product: Product) -> None:
    """The box is 4 x 2 x 1: scaled to 1 x 1/2 x 1/4, points are on one of its six sides."""
    points = points_of(rows(product)["Scopia#box"])
    assert points.shape == (furniture.POINTS, 3)
    half = np.array([0.5, 0.25, 0.125])
    gap = np.abs(np.abs(points) - half)
    assert (gap.min(1) <= 1 / furniture.GRID).all()
    assert (np.abs(points) <= half + 1 / furniture.GRID).all()
    # Points by area: the large sides have 4 * 2 of 2 * (8 + 4 + 2).
    share = (gap[:, 2] < 1 / furniture.GRID).mean()
    assert share == pytest.approx(16 / 28, abs=0.04)


def test_models_are_turned_as_the_catalogue_asks(product: Product) -> None:
    """The rotation takes x to -y and y to x: what was wide becomes tall."""
    found = rows(product)
    upright, turned = (points_of(found[f"Scopia#{name}"]) for name in ("tent", "slanted"))
    assert np.ptp(upright, axis=0).argmax() == 0
    assert np.ptp(turned, axis=0).argmax() == 1
    # The tip, far from the base, was up and is now along x.
    assert abs(np.median(upright[:, 1])) > 0.02
    assert np.median(turned[:, 0]) == pytest.approx(np.median(upright[:, 1]), abs=0.02)


def test_build_repeats(product: Product) -> None:
    corners = furniture.centred(furniture.triangles(obj(BOX, SIDES)))
    once, again = (furniture.stored(furniture.sampled(corners, "a", 64)) for _ in range(2))
    np.testing.assert_array_equal(once, again)
    other = furniture.stored(furniture.sampled(corners, "b", 64))
    assert not np.array_equal(once, other)


def test_unknown_licence_is_refused() -> None:
    scopia = catalogue(
        [entry("Scopia#box", "Box", "box/box.obj")],
        {"box/box.obj": obj(BOX, SIDES), "box/licence.txt": "All rights reserved"},
    )
    with pytest.raises(ValueError, match="licence file of Scopia#box states no known licence"):
        furniture.build(package(scopia))


def test_polygons_become_fans_and_numbers_may_count_back() -> None:
    text = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1/1/1 2/2/1 3/3/1 4/4/1\nv 9 9 9\nf -1 1 -4\n"
    triangles = furniture.triangles(text)
    assert triangles.tolist() == [
        [[0, 0, 0], [1, 0, 0], [1, 1, 0]],
        [[0, 0, 0], [1, 1, 0], [0, 1, 0]],
        [[9, 9, 9], [0, 0, 0], [1, 0, 0]],
    ]


def test_stored_neighbours_are_neighbours_in_space() -> None:
    """Along the curve steps are short, and no point is lost."""
    rng = np.random.default_rng(0)
    points = rng.random((2000, 3)) - 0.5
    whole = furniture.stored(points).reshape(3, -1).T
    expected = np.rint(points * furniture.GRID)
    assert sorted(map(tuple, whole.tolist())) == sorted(map(tuple, expected.tolist()))
    steps = np.linalg.norm(np.diff(whole / furniture.GRID, axis=0), axis=1)
    assert np.median(steps) < 0.15


@pytest.mark.parametrize(
    ("category", "name", "expected"),
    [
        ("Doors and windows", "French window", "door or window"),
        ("Characters", "Standing male", "person"),
        ("Characters", "Dog", "animal"),
        ("Living room", "Wheelchair", furniture.OTHER),
        ("Living room", "Armchair", "chair"),
        ("Living room", "Coffee table", "table"),
        ("Bathroom", "Bidet", "sanitary ware"),
        ("Miscellaneous", "Palm", "plant"),
    ],
)
def test_kinds_follow_words(category: str, name: str, expected: str) -> None:
    assert furniture.kind(category, name) == expected


def test_pairs_are_found_whatever_way_a_shape_looks() -> None:
    def box(seed: str, size: tuple[float, float, float]) -> Floats:
        scaled = [tuple(np.multiply(corner, size)) for corner in BOX]
        corners = furniture.centred(furniture.triangles(obj(scaled, SIDES)))
        return furniture.sampled(corners, seed, 4000)

    sizes = [(1, 1, 1), (1, 1, 1), (1, 1.6, 1), (1, 1, 3)]
    first = [box(f"a{i}", size) for i, size in enumerate(sizes)]
    second = [box(f"b{i}", size) for i, size in enumerate(sizes)]
    first[1], second[1] = first[1] @ POSES[3], second[1] @ POSES[3]
    ((ratio, one, other),) = similar_pairs(first, second, 1.5)
    assert (one, other) == (0, 1)
    assert ratio == pytest.approx(1, abs=0.1)


def test_versions_of_versions_are_one_group() -> None:
    assert connected([(4, 1), (7, 8), (1, 3)]) == [[1, 3, 4], [7, 8]]
    assert connected([]) == []


def test_table_has_the_columns_of_the_manifest(product: Product) -> None:
    data = dataset("sweethome3d-furniture")
    assert tuple(product.table.column_names) == data.columns
    assert product.table.schema.field("points").type == pa.list_(pa.int16())
