"""The docstrings: pairs that are whole, fair, distinct, and split by module."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tasks.data.build import docstrings as build_script
from tasks.data.build.docstring_text import docstrings, plain, summary_and_body
from tasks.data.build.docstrings import Pair, is_fair
from tasks.data.build.repeated_text import distinct, runs
from tasks.data.embedded import SPLITS, dataset

Row = dict[str, str]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    table = dataset("docstrings").table()
    found: list[Row] = table.to_pylist()
    return found


# The pairs


def test_file_is_the_one_of_the_manifest(rows: list[Row]) -> None:
    data = dataset("docstrings")
    assert len(rows) == data.rows == 10_242
    assert data.columns == ("id", "package", "module", "name", "source", "target")
    assert data.bytes < 5_000_000
    assert set(Counter(row["package"] for row in rows)) == set(build_script.SOURCES)
    assert all(f"{package}==" in data.source.download for package in build_script.SOURCES)


def test_lengths_are_as_described(rows: list[Row]) -> None:
    for row in rows:
        assert 25 <= len(row["source"].split()) <= 200, row["id"]
        assert 4 <= len(row["target"].split()) <= 20, row["id"]


def test_pairs_are_fair(rows: list[Row]) -> None:
    assert all(is_fair(row["source"], row["target"]) for row in rows)


def test_ids_are_paths(rows: list[Row]) -> None:
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert row["id"].startswith(row["module"])
        assert row["id"].endswith(f".{row['name']}")


def test_targets_are_distinct(rows: list[Row]) -> None:
    targets = [re.sub(r"\W+", " ", row["target"].lower()).strip() for row in rows]
    assert len(set(targets)) == len(targets)


def test_text_is_clean(rows: list[Row]) -> None:
    unwanted = {
        "doctests": r">>>",
        "directives": r"^\.\. ",
        "roles": r":\w+:`",
        "control characters": r"[\x00-\x09\x0b-\x1f\x7f-\x9f]",
        "loose white space": r" \n|\n | {2}|\n\n|\N{NO-BREAK SPACE}|\A\s|\s\Z",
        "backticks": r"`",
    }
    for what, pattern in unwanted.items():
        for row in rows:
            assert not re.search(pattern, row["source"], re.MULTILINE), (what, row["id"])
            assert not re.search(pattern, row["target"]), (what, row["id"])
    assert not any(re.search(r"%\(|\{\{|\n", row["target"]) for row in rows)


# The splits


def test_splits_are_disjoint_and_cover_the_modules(rows: list[Row]) -> None:
    data = dataset("docstrings")
    members = [member for split in SPLITS for member in data.split(split)]
    assert sorted(members) == sorted({row["module"] for row in rows})
    sizes = [data.select(split).num_rows for split in SPLITS]
    assert sum(sizes) == len(rows)
    for size in sizes[1:]:
        assert 0.07 < size / len(rows) < 0.09


def test_held_out_pairs_are_of_many_packages() -> None:
    data = dataset("docstrings")
    for split in ("validation", "test"):
        packages = Counter(data.select(split)["package"].to_pylist())
        assert len(packages) >= 15
        assert max(packages.values()) < 0.35 * sum(packages.values())


def test_no_body_is_repeated_in_another_split() -> None:
    """Of a held-out body less than half is in any one of train, by runs of five words."""
    data = dataset("docstrings")
    train: dict[bytes, list[int]] = {}
    sizes = []
    for index, source in enumerate(data.select("train")["source"].to_pylist()):
        found = runs(source, 5)
        sizes.append(len(found))
        for run in found:
            train.setdefault(run, []).append(index)
    for split in ("validation", "test"):
        for source in data.select(split)["source"].to_pylist():
            found = runs(source, 5)
            common = Counter(index for run in found for index in train.get(run, ()))
            for index, count in common.most_common(3):
                assert count < 0.5 * min(len(found), sizes[index])


# The build

NUMPYDOC = '''
def norm(x, ord=None):
    """
    Matrix or vector norm.

    This function returns one of :class:`eight <numpy.linalg>` norms [1]_, see
    `the page <https://example.org>`_ and ``ord``::

        hidden = code

    .. versionadded:: 1.0
       Hidden.

    It is *fast*.

    Parameters
    ----------
    x : array_like
        Input `array` of %(kind)s.

    Examples
    --------
    >>> norm([3, 4])
    5.0

    Notes
    -----
    The norm is :math:`\\\\sqrt{x}` here.
    """
'''

GOOGLE = '''
class Dense:
    """Just your regular layer.

    Usage:
    ```
    hidden
    ```

    Args:
      units: Positive integer.

    Raises:
      ValueError: hidden.
    """

    def call(self):
        """Runs it.

        :param x: the input
        :returns: the output
        """

    def silent(self):
        pass
'''


def test_numpydoc_is_taken_apart() -> None:
    ((name, text),) = docstrings(NUMPYDOC.encode())
    assert name == "norm"
    summary, body = summary_and_body(text)
    assert summary == "Matrix or vector norm."
    assert body.splitlines() == [
        "This function returns one of eight norms, see the page and ord:",
        "It is fast.",
        "x : array_like Input array of .",
        r"The norm is \sqrt{x} here.",
    ]


def test_google_and_sphinx_styles_are_taken_apart() -> None:
    found = dict(docstrings(GOOGLE.encode()))
    assert list(found) == ["Dense", "Dense.call"]
    assert summary_and_body(found["Dense"]) == (
        "Just your regular layer.",
        "units: Positive integer.",
    )
    assert summary_and_body(found["Dense.call"]) == ("Runs it.", "x: the input the output")


def test_markup_is_removed() -> None:
    assert plain(r"~numpy.array **bold** :func:`~a.b.c` \* x_{i} x ** 2") == (
        r"numpy.array bold a.b.c * x_{i} x ** 2"
    )


def test_fair_pairs() -> None:
    source = "The eigenvalues of a symmetric matrix are computed by bisection."
    assert is_fair(source, "Compute eigenvalues of a matrix")
    assert not is_fair(source, "Draw a histogram of the samples")
    assert not is_fair(source, "Eigenvalues of a symmetric matrix")  # stands in the source


def test_distinct_keeps_the_first_of_near_duplicates() -> None:
    first = "one two three four five six seven eight nine ten"
    second = first + " eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen"
    other = "alpha beta gamma delta epsilon zeta eta theta"
    assert distinct([first, other, second, other.upper()], 3, 0.5) == [0, 1]
    assert distinct([first, second], 3, 1.1) == [0, 1]


def test_modules_are_the_first_level_or_the_second_of_a_gathering() -> None:
    def module(path: str) -> str:
        return Pair("p", path, "f", "", "").module

    assert module("scipy.signal._waveforms") == "scipy.signal"
    assert module("networkx.algorithms.flow.utils") == "networkx.algorithms.flow"
    assert module("control.bdalg") == "control.bdalg"


def test_code_of_others_is_left_out() -> None:
    text = '"""Summary of the docstring here.\n\n' + "words of the docstring summary " * 9 + '"""'
    module = f"def f():\n    {text}\n".encode()
    members = {
        "p/p/good.py": module,
        "p/p/tests/test_good.py": module,
        "p/p/_vendor/good.py": module,
        "p/p/copyleft.py": b"# GNU General Public License\n" + module,
        "p/p/data.json": b"{}",
    }
    assert [pair.id for pair in build_script._pairs(members)] == ["p.good.f"]
