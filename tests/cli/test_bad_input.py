"""Bad input: one clear line on standard error, exit code 2, no traceback."""

import os

import pytest

RUN = ("run", "--scale", "tiny", "--pattern", "causal-cross")
LLA = ("--attn", "lla")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((*RUN, "--attn", "lal"), "did you mean"),
        ((*RUN, "--attn", "local"), "it supports noncausal-self, causal-self"),
        ((*RUN, *LLA, "--task", "summarisation"), "did you mean summarization"),
        ((*RUN, *LLA, "--task", "masked-lm"), "no task of masked-lm has slots of causal-cross"),
        (("run", *LLA, "--pattern", "CX"), "unknown pattern 'CX'"),
        (("run", *LLA, "--pattern", "CC", "--scale", "huge"), "choose from tiny, small"),
        ((*RUN, *LLA, "--task", "test-time-regression", "--scale", "paper"), "has no scale paper"),
        ((*RUN, *LLA, "--seeds", "0"), "--seeds must be at least 1"),
        ((*RUN, *LLA, "--seeds", "many"), "--seeds"),
        ((*RUN, *LLA, "--measure", "speed"), "unknown measure 'speed'"),
        ((*RUN, *LLA, "--device", "tpu"), "unknown device"),
        ((*RUN, *LLA, "--executor", "cloud"), "unknown executor 'cloud'"),
        ((*RUN, *LLA, "--option", "ridge"), "name=value"),
        ((*RUN, *LLA, "--option", "rigde=1"), "has no option 'rigde'; it has ridge"),
        ((*RUN, *LLA, "--option", "ridge=big"), "takes float"),
        (
            ("run", "--attn", "s4d", "--pattern", "CS", "--option", "state=3"),
            "'s4d': state must be even",
        ),
        ((*RUN, *LLA, "--replicas", "0"), "--replicas must be at least 1"),
        ((*RUN, *LLA, "--preset", "cab"), "has no preset 'cab'; it has none"),
        ((*RUN, "--attn", "performer", "--preset", "cap"), "has no preset 'cap'; it has cab"),
        (("check", "performer", "--preset", "cap"), "has no preset 'cap'"),
        ((*RUN, *LLA, "--data-dir", "nowhere"), "is not a folder"),
        ((*RUN, "--attn", "absent.py:Mine"), "does not exist"),
        ((*RUN, "--attn", "json:JSONDecoder"), "must be a subclass of"),
        ((*RUN, *LLA, "--retry", "oops"), "--retry takes outcomes (oom, unsupported, invalid,"),
        ((*RUN, *LLA, "--retry", "oom,ok"), "not 'ok'"),
        ((*RUN, *LLA, "--retry", ","), "not ''"),
        (("bench", *LLA, "-p", "CS", "--retry", "slow"), "disturbed), not 'slow'"),
        (("run", "--pattern", "CC"), "--attn"),
        ((*RUN, "--hybrid", "lla"), "a part of a hybrid is name:layers"),
        ((*RUN, "--hybrid", "lla:0,softmax:1"), "lla:0 has no layer"),
        ((*RUN, "--hybrid", "lla:1"), "at least two different parts"),
        ((*RUN, "--hybrid", "lal:1,softmax:1"), "unknown attention 'lal'; did you mean"),
        ((*RUN, "--hybrid", "local:1,softmax:1"), "(local does not: queries and keys"),
        ((*RUN, "--hybrid", "softmax+modpai:1,lla:1"), "no part of a hybrid"),
        ((*RUN, "--hybrid", "lla:1,softmax:1", "--option", "ridge=1"), "stand in its name"),
        ((*RUN, "--hybrid", "lla:1,softmax:1", "--measure", "memory"), "of lla, softmax"),
        (("bench", "-a", "lla:1,softmax:1", "-p", "CC"), "measure its parts, lla, softmax"),
        (("check", "lla:1,softmax:1"), "cab check lla, cab check softmax"),
        (("show", "lala"), "did you mean"),
        (("check", "lla", "--pattern", "nope"), "unknown pattern"),
        (("leaderboard", "--scale", "big"), "unknown scale"),
        (("leaderboard", "--grade", "good"), "unknown grade"),
        (("frobnicate",), "No such command"),
    ],
)
def test_one_line_and_exit_code_2(forked_cab_in, words, says):
    done = forked_cab_in(*words)
    assert done.returncode == 2, done
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_data_dir_without_the_files(forked_cab_in, tmp_path):
    empty = tmp_path / "data"
    empty.mkdir()
    done = forked_cab_in(*RUN, *LLA, "--task", "summarization", "--data-dir", empty)
    assert done.returncode == 2
    assert "train.src" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_data_dir_for_a_task_that_reads_none(forked_cab_in, tmp_path):
    done = forked_cab_in(*RUN, *LLA, "--task", "test-time-regression", "--data-dir", tmp_path)
    assert done.returncode == 2
    assert "reads no original data" in done.stderr


def test_a_file_that_does_not_import(forked_cab_in, tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_package_at_all\n")
    done = forked_cab_in(*RUN, "--attn", "broken.py:Mine")
    assert done.returncode == 2
    assert "does not import: ModuleNotFoundError" in done.stderr
    assert "Traceback" not in done.stderr


def test_results_folder_is_a_file(forked_cab_in, tmp_path):
    (tmp_path / "file").write_text("")
    for words in ((*RUN, *LLA), ("leaderboard",)):
        done = forked_cab_in(*words, "--out", "file")
        assert done.returncode == 2
        assert "file" in done.stderr


def test_results_folder_with_a_corrupt_file(forked_cab_in, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "broken.parquet").write_bytes(b"PAR1 nothing else")
    for words in ((*RUN, *LLA), ("leaderboard",)):
        done = forked_cab_in(*words, "--out", folder)
        assert done.returncode == 2
        assert "broken.parquet is not readable" in done.stderr
    assert os.listdir(folder) == ["broken.parquet"]


def test_results_folder_that_cannot_be_made(forked_cab_in):
    done = forked_cab_in(*RUN, *LLA, "--out", "/proc/no/such/folder")
    assert done.returncode == 2
    assert "cannot write to the results folder" in done.stderr
