"""What commands say of installed packages, of files, and of names that are neither."""

import os
import subprocess
import sys

import pytest

from tests.cab.plugins import entry, install

TASK = "from cab import Task\n\n\nclass MyTask(Task): ...\n"


@pytest.fixture
def site(tmp_path_factory, monkeypatch):
    """A folder of installed packages, on the path of commands."""
    folder = tmp_path_factory.mktemp("site")
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in paths if p))
    return folder


def words(text):
    return " ".join(text.split())


def test_a_new_file_of_a_package_is_listed_and_shown(cab_in, site):
    install(site, "plugin", {"plugin": "plug"}, {"plug/one.py": entry("one")})
    assert "\none " in cab_in("list", "attentions").stdout
    (site / "plug/two.py").write_text(entry("two"))
    assert "\ntwo " in cab_in("list", "attentions").stdout
    assert cab_in("show", "two", "--no-reference").stdout.startswith("two ")


def test_a_broken_plugin_is_named_and_explained(cab_in, site):
    files = {"plug/bad_one.py": entry("bad-one") + "def f(:\n", "plug/good.py": entry("good")}
    install(site, "my-plugin", {"its-point": "plug"}, files)
    listed = cab_in("list", "attentions")
    assert listed.returncode == 0
    assert "\ngood " in listed.stdout
    assert "broken attention plug.bad_one" in words(listed.stdout)
    for name in ("plug.bad_one", "bad-one"):
        shown = cab_in("show", name)
        assert shown.returncode == 0
        told = words(shown.stdout)
        assert "SyntaxError" in told
        assert "entry point its-point" in told
        assert "declared by my-plugin" in told
        assert f"mend{site}/plug/bad_one.py" in "".join(told.split())
    assert "SyntaxError" in words(cab_in("doctor").stdout)
    run = cab_in("run", "--attn", "bad-one", "-p", "CC")
    assert run.returncode == 2
    assert "is broken: SyntaxError" in run.stderr


def test_an_id_that_is_taken_is_shown_with_who_has_it(cab_in, site):
    install(site, "my-plugin", {"plugin": "plug"}, {"plug/one.py": entry("softmax")})
    shown = words(cab_in("show", "softmax", "--no-reference").stdout)
    assert "is taken by attentions.softmax:SoftmaxAttention" in shown
    assert "Softmax attention (fused)" in shown


def test_doctor_tells_of_metadata_that_list_our_entries_one_by_one(cab_in, site):
    points = {"softmax": "attentions.softmax:SoftmaxAttention"}
    install(site, "cab", points, {})
    assert "of an earlier version" in cab_in("doctor").stdout
    assert "\nsoftmax " in cab_in("list", "attentions").stdout
    points = "[cab.attentions]\nours = attentions\n[cab.tasks]\nours = tasks\n"
    (site / "cab-1.0.dist-info/entry_points.txt").write_text(points)
    assert "of an earlier version" not in cab_in("doctor").stdout


def test_a_point_that_leads_nowhere_says_what_to_install(cab_in, site):
    install(site, "my-plugin", {"gone": "plug.gone:Gone"}, {}, group="cab.tasks")
    told = words(cab_in("show", "gone").stdout)
    assert "broken task" in told
    assert "does not import: ModuleNotFoundError" in told
    assert "install my-plugin again, or mend the entry point 'gone'" in told


def test_show_takes_targets_of_either_kind(cab_in, tmp_path):
    (tmp_path / "mine.py").write_text(entry("my-own") + "class Helper: ...\n" + TASK)
    shown = cab_in("show", "mine.py:Mine", "--no-reference")
    assert shown.stdout.startswith("my-own ")
    shown = cab_in("show", "tasks.passkey.task:Passkey", "--no-reference")
    assert shown.stdout.startswith("passkey ")
    refused = cab_in("show", "mine.py:Helper")
    assert refused.returncode == 2
    assert "neither an attention nor a task" in refused.stderr
    refused = cab_in("show", "mine.py:MyTask")
    assert "has no info record; decorate it with @register_task" in refused.stderr


def test_show_of_a_file_names_the_classes_of_both_kinds(cab_in, tmp_path):
    (tmp_path / "mine.py").write_text(entry("my-own") + TASK)
    refused = cab_in("show", "mine.py")
    assert refused.returncode == 2
    assert "mine.py has Mine, MyTask; name one as mine.py:Mine" in refused.stderr
    assert "did you mean ./mine.py:MyTask" in cab_in("show", "my-task").stderr


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("mine", "unknown attention 'mine'; did you mean ./mine.py:Mine?"),
        ("my-own", "unknown attention 'my-own'; did you mean ./mine.py:Mine?"),
        ("mine.py", "mine.py has Mine; name one as mine.py:Mine"),
    ],
)
def test_a_name_that_is_no_id_is_looked_for_nearby(cab_in, tmp_path, given, says):
    (tmp_path / "mine.py").write_text("raise SystemExit('imported')\n" + entry("my-own"))
    done = cab_in("run", "--attn", given, "-p", "CC")
    assert done.returncode == 2
    assert done.stderr.strip() == f"cab: {says}"


def test_the_installed_command_finds_modules_of_the_current_folder(tmp_path):
    (tmp_path / "mine.py").write_text(entry("my-own"))
    code = "import sys; from cab.cli.app import main; sys.argv[0] = 'cab'; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "show", "mine:Mine", "--no-reference"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("my-own ")


def test_attentions_of_a_family(cab_in):
    listed = cab_in("list", "attentions", "--family", "linear", "-f", "low-rank").stdout
    assert "\nlinear-elu " in listed
    assert "\nabc " in listed
    assert "\nsoftmax " not in listed
    matrix = cab_in("list", "attentions", "--patterns", "--family", "linear").stdout
    assert "lara, no" in words(matrix)
    assert "\nlla " not in matrix
    refused = cab_in("list", "attentions", "--family", "linaer")
    assert refused.returncode == 2
    assert "unknown family 'linaer'; did you mean linear?" in refused.stderr
    assert "(mixer, state-space)" in cab_in("show", "s4d", "--no-reference").stdout
