"""Builds `docstrings`: the body and the summary line of docstrings of scientific Python packages.

    pip download --no-deps numpy==1.24.2 scipy==1.10.1 ...
    python -m tasks.data.build.docstrings numpy-1.24.2-cp311-cp311-manylinux_2_17_x86_64....whl

The wheels of `SOURCES` lie in one folder; the command names the first. Those with compiled code
are the ones for CPython 3.11 on Linux x86-64: elsewhere, add `--python-version 3.11 --platform
manylinux2014_x86_64 --only-binary :all:`. The releases are of the winter of 2022/23 and before,
when developers wrote such text by hand.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from tasks.data.build.docstring_text import docstrings, summary_and_body
from tasks.data.build.publication import Description, Product, run
from tasks.data.build.repeated_text import distinct
from tasks.data.build.source_archive import SourceArchive, SourceArchives
from tasks.data.build.splitting import split_documents

_COMPILED = "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"
_PURE = "py3-none-any"

# package: version, tag of the wheel, SHA-256
SOURCES = {
    "numpy": (
        *("1.24.2", _COMPILED),
        "9a23f8440561a633204a67fb44617ce2a299beecf3295f0d13c495518908e910",
    ),
    "astropy": (
        *("5.2.1", _COMPILED),
        "698fd8d8c7230fd47e51fdecab7d4d533e2e01a96ec0cb74b770c06314d9a698",
    ),
    "control": (
        *("0.9.3.post2", _PURE),
        "64b5d89ad1df9385e4ac1adeea1427051582064f5309d0807298e93e076eb562",
    ),
    "dask": (
        *("2023.2.1", _PURE),
        "283e810ef5772a845fb970c26aefc3694d2ed2fbf56dca381d9bcca44e0212dd",
    ),
    "keras": (
        *("2.11.0", "py2.py3-none-any"),
        "38c6fff0ea9a8b06a2717736565c92a73c8cd9b1c239e7125ccb188b7848f65e",
    ),
    "MetPy": (
        *("1.4.0", _PURE),
        "9969febc9b14848f6143932d5e9029153b5fb39ca8f1d77466db5a4814228eb0",
    ),
    "mne": (
        *("1.3.1", _PURE),
        "805bf8e9e99f3fc5e11d504c8f200963cc489b6614cdd3e93227f818f7fdcbe8",
    ),
    "networkx": (
        *("3.0", _PURE),
        "58058d66b1818043527244fab9d41a51fcd7dcc271748015f3c181b8a90c8e2e",
    ),
    "nilearn": (
        *("0.10.0", _PURE),
        "a78df43e0d9dcea18ac3bc2e56e0683c7bfd98cd2dd17e1e134f3003ce464868",
    ),
    "nltk": (
        *("3.8.1", _PURE),
        "fd5c9109f976fa86bcadba8f91e47f5e9293bd034474752e92a520f81c93dda5",
    ),
    "pandas": (
        *("1.5.3", _COMPILED),
        "5f2b952406a1588ad4cad5b3f55f520e82e902388a6d5a4a91baa8d38d23c7f6",
    ),
    "pyvista": (
        *("0.38.3", _PURE),
        "67f9611c357b8d1ad3e7dfecba57ae549e1c22a966df0a9e1f387570b88a5a60",
    ),
    "scikit-image": (
        *("0.20.0", _COMPILED),
        "8d719242ea7e7250d49e38d1e33c44c2dd59c3414ae085881d168b98cbb6059a",
    ),
    "scikit-learn": (
        *("1.2.2", _COMPILED),
        "bf036ea7ef66115e0d49655f16febfa547886deba20149555a41d28f56fd6d3c",
    ),
    "scikit-rf": (
        *("0.24.1", _PURE),
        "f6d9b577227287c91925968276e46b0e37a2e527ac2cad3f55bd3857541ab089",
    ),
    "scipy": (
        *("1.10.1", _COMPILED),
        "15a35c4242ec5f292c3dd364a7c71a61be87a3d4ddcc693372813c0b73c9af1d",
    ),
    "sktime": (
        *("0.16.1", _PURE),
        "3096e70dd88a84fbb8e73bd305d7551cfb6aacb72ac6ab8488ad727717bc7ad8",
    ),
    "statsmodels": (
        *("0.13.5", _COMPILED),
        "5d5cd9ab5de2c7489b890213cba2aec3d6468eaaec547041c2dfcb1e03411f7e",
    ),
    "sympy": (
        *("1.11.1", _PURE),
        "938f984ee2b1e8eae8a07b884c8b7a1146010040fccddc6539c54f401c8f6fcf",
    ),
    "tensorflow-probability": (
        *("0.19.0", "py2.py3-none-any"),
        "ee70967fbd52b09e9c5ec148a9437c4cf3f9e9d689cdca400a1bc921f21cdcac",
    ),
    "torchvision": (
        *("0.15.1", "cp311-cp311-manylinux1_x86_64"),
        "13f71a3372d9168b01481a754ebaa171207f3dc455bf2fd86906c69222443738",
    ),
    "trimesh": (
        *("3.20.2", _PURE),
        "3465ee65a35f958fcefe9ab2a3c636c088cb4ccc3951ec7fd72368f7efcf1525",
    ),
    "xarray": (
        *("2023.2.0", _PURE),
        "9fb925e47deb68e2486c8d80d13e3ad97ff6f0e02a26d622c0b6559be707c22e",
    ),
}

DESCRIPTION = Description(
    name="docstrings",
    title="Docstrings of scientific Python packages",
    description=(
        "Docstrings of the classes, functions and methods of 23 scientific Python packages. The "
        "target is the summary line (4 to 20 words) that a developer wrote, the source what "
        "explains it: description, notes, parameters and results (25 to 200 words), without code "
        "and markup, one line per paragraph."
    ),
    source=SourceArchives(
        *(
            SourceArchive(
                package=package,
                version=version,
                filename=f"{package.replace('-', '_')}-{version}-{tag}.whl",
                sha256=sha256,
            )
            for package, (version, tag, sha256) in SOURCES.items()
        )
    ),
    licence="BSD-3-Clause AND MIT AND Apache-2.0",
    attribution=(
        "The developers of astropy, control, dask, Keras, MetPy, MNE-Python, NetworkX, nilearn, "
        "NLTK, NumPy, pandas, PyVista, scikit-image, scikit-learn, scikit-rf, SciPy, sktime, "
        "statsmodels, SymPy, TensorFlow Probability, torchvision, trimesh and xarray; the "
        "docstrings were taken apart, shortened and freed from markup."
    ),
    split_rule=(
        "By module: a package's first subpackage or module, one level deeper where that only "
        "gathers others, as in networkx.algorithms. About 8 % of the pairs each in "
        "validation and test, in the order of SHA-256('0:' + module)."
    ),
    id_column="module",
)

SOURCE_WORDS = (25, 200)
TARGET_WORDS = (4, 20)

# A target is fair where at least this fraction of what it says can be read in the source.
LEAST_COVERAGE = 0.5

# Two sources of which half of the runs of five words agree describe the same thing.
RUN_WORDS, MOST_SHARED = 5, 0.5

GATHERING = ("networkx.algorithms", "pandas.core", "tensorflow_probability.python")

# Tests, generated copies, and code of others that a package carries along.
_FOREIGN = re.compile(
    r"(?:^|/)(?:tests?|testing|_?vendor(?:ed)?|_?externals?|extern|examples?|benchmarks?|libs|compat|"
    r"extension_templates|substrates|internal/backend|conftest\.py|setup\.py|six\.py|decorator\.py|"
    r"test_\w*\.py|\w*_test_base\.py)(?:/|$)"
)
# Files under terms other than their package's.
_OTHER_TERMS = frozenset(
    {
        "skimage/exposure/_adapthist.py",
        "skimage/filters/thresholding.py",
        "sklearn/utils/_pprint.py",
        "statsmodels/stats/libqsturng/qsturng_.py",
    }
)
_COPYLEFT = re.compile(rb"\bGPL|General Public License", re.IGNORECASE)

_TEMPLATE = re.compile(r"%\(|\{\{|(?<![\w^}])\{\w+\}")

# Words that stand in every other docstring.
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a all an and any are as at base be by can class compute computes each for from function "
        "get given gives helper if in into is it its method new not of on one or return returned "
        "returns set sets that the their then this to use used uses using value values when where "
        "which will with",
    )
)
_SUFFIX = re.compile(r"(?<=\w{4})(?:ations?|ions?|ings?|ed|es|e|s)$")


@dataclass(frozen=True)
class Pair:
    """One docstring."""

    package: str
    path: str
    """Dotted path of the file, without ``__init__``."""
    name: str
    source: str
    target: str

    @property
    def module(self) -> str:
        """The part of the package that the splits keep together."""
        parts = self.path.split(".")
        return ".".join(parts[: 3 if ".".join(parts[:2]) in GATHERING else 2])

    @property
    def id(self) -> str:
        """Dotted path of the object, unique."""
        return f"{self.path}.{self.name}"


def build(members: Mapping[str, bytes]) -> Product:
    """One row per pair, sorted by package and id."""
    found = sorted(_pairs(members), key=lambda pair: (pair.package.lower(), pair.id))
    found = _first_of_each(found, lambda pair: pair.id)
    fair = [pair for pair in found if is_fair(pair.source, pair.target)]
    once = _first_of_each(fair, lambda pair: _said(pair.target))
    kept = [once[i] for i in distinct([pair.source for pair in once], RUN_WORDS, MOST_SHARED)]
    weights = Counter(pair.module for pair in kept)
    target = round(0.08 * len(kept))
    columns = ("id", "package", "module", "name", "source", "target")
    return Product(
        table=pa.table({name: [getattr(pair, name) for pair in kept] for name in columns}),
        splits=split_documents(weights, {"validation": target, "test": target}, tolerance=0.06),
        left_out={
            "unfair": f"{len(found) - len(fair)} pairs: less than half of the summary's words "
            "stand in the body, or the body repeats the summary",
            "repeated summary": f"{len(fair) - len(once)} pairs",
            "repeated body": f"{len(once) - len(kept)} pairs that share at least half of their "
            f"runs of {RUN_WORDS} words with an earlier one",
            "other terms": "four files, those that mention the GPL, and code of others that a "
            "package carries along",
        },
        notes=[
            "Code, doctests, displayed formulas, references and lists of errors are left out of "
            f"the body, which ends after {SOURCE_WORDS[1]} words.",
            "The name of the object is not in the source unless its author repeats it.",
            "A stub of stemming decides which words of a summary stand in the body: see "
            "`is_fair` in the build script.",
        ],
    )


def _first_of_each(pairs: Sequence[Pair], key: Callable[[Pair], str]) -> list[Pair]:
    first: dict[str, Pair] = {}
    for pair in pairs:
        first.setdefault(key(pair), pair)
    return list(first.values())


def _pairs(members: Mapping[str, bytes]) -> Iterator[Pair]:
    for member, content in members.items():
        package, _, file = member.partition("/")
        foreign = _FOREIGN.search(file) or file in _OTHER_TERMS or _COPYLEFT.search(content)
        if foreign or not file.endswith(".py"):
            continue
        path = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name, text in docstrings(content):
            summary, body = summary_and_body(text)
            ends = [word.end() for word in re.finditer(r"\S+", body)][: SOURCE_WORDS[1]]
            target = summary.removesuffix(".").rstrip()
            if len(ends) >= SOURCE_WORDS[0] and _is_summary(target):
                source = body[: ends[-1]]
                yield Pair(package, path, name, source, target)


def _is_summary(text: str) -> bool:
    least, most = TARGET_WORDS
    whole = text[:1].isupper() and text[-1] not in ":,;" and not _TEMPLATE.search(text)
    return whole and least <= len(text.split()) <= most


def is_fair(source: str, target: str) -> bool:
    """Whether the summary can be known from the source, and is not simply a part of it."""
    said, known = _content(target), _content(source)
    covered = len(said & known) >= LEAST_COVERAGE * len(said)
    return bool(said) and covered and target.lower() not in source.lower()


def _content(text: str) -> set[str]:
    return {_SUFFIX.sub("", word) for word in _words(text)}


def _said(target: str) -> str:
    return " ".join(_words(target))


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z]{2,}", text.lower()) if word not in _STOP_WORDS]


if __name__ == "__main__":
    run(DESCRIPTION, build, repeated=("package", "module"))
