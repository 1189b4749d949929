"""Patterns of files to leave out."""

from __future__ import annotations

import fnmatch
import random
import time
from pathlib import Path

import pytest

import squall
from squall.exception import InvalidError
from squall.file_pattern_matcher import FilePatternMatcher
from squall.sdk import _mount
from squall.sdk.file_pattern_matcher import as_predicate, can_prune


@pytest.mark.parametrize(
    ("patterns", "ignored", "kept"),
    [
        (["*.log"], ["a.log"], ["a/b.log", "a.logs", "log"]),
        (["**/*.log"], ["a.log", "a/b.log", "a/b/c.log"], ["a.txt"]),
        (["build"], ["build", "build/x", "build/x/y"], ["src/build", "builds"]),
        (["/build/"], ["build/x"], ["src/build"]),
        (["a/**"], ["a/b", "a/b/c"], ["b/a"]),
        (["a/**/z"], ["a/z", "a/b/z", "a/b/c/z/x"], ["a/zz"]),
        (["**"], ["a", "a/b"], []),
        (["a/**/**"], ["a/b"], ["a", "b"]),
        (["**/a/**"], ["a/b", "x/a/b", "x/y/a/b/c"], ["a", "x/a", "xa/b"]),
        (["**/a/b/**/c"], ["a/b/c", "a/a/b/c", "x/a/b/x/y/c/z", "a/b/a/b/c"], ["a/c", "a/x/b/c", "a/b/cc"]),
        (["*a*b*"], ["ab", "xaxbx", "aab", "ab/c"], ["ba", "a/b", "xa"]),
        (["*a*a"], ["aa", "aaa", "xaya"], ["a", "xa", "aab"]),
        (["a*/b*c/**/*d"], ["ax/bc/d", "a/bxc/y/z/xd", "a/bcc/d/e"], ["a/b/c/d", "a/bc/dx"]),
        (["a[!x]b"], ["ayb"], ["axb", "a/b"]),
        (["line*"], ["line\nbreak", "line\nbreak/x"], ["x\nline"]),
        (["?at"], ["cat", "bat/x"], ["at", "chat"]),
        (["[a-c].py"], ["a.py"], ["d.py"]),
        (["[!a-c].py"], ["d.py"], ["a.py"]),
        (["*", "!keep.py"], ["a", "b/c"], ["keep.py"]),
        (["*", "!keep"], ["a"], ["keep/x/y"]),
        (["data", "!data/small", "data/small/not"], ["data/x", "data/small/not"], ["data/small/yes"]),
        (["# comment", "", "a"], ["a"], ["# comment"]),
        ([r"\*"], ["*"], ["a"]),
        (["**.env"], [".env", "sub/.env", "a/b/.env/x"], ["x.env", "sub/x.env"]),
        (["a**b"], ["ab", "a/b", "a/x/b", "ax/b", "a/x/b/c"], ["axb", "b", "a/xb"]),
        (["a**/b"], ["ab", "a/x/b"], ["axb"]),
        (["a**b**c"], ["abc", "ab/bc", "a/b/c", "a/x/b/y/c"], ["abxc", "ab/xc"]),
        (["a**"], ["a", "ab", "a/b", "ab/c"], ["b", "b/a"]),
        ([r"a\**b", "x[**]y"], ["a*b", "a*xb", "x*y"], ["axb", "x/y", "xay"]),
        (["a/../b/./c//d"], ["b/c/d"], ["a/b/c/d", "b"]),
        (["\ufeffa"], ["a"], ["b"]),
        ([], [], ["anything"]),
    ],
)
def test_patterns_decide_as_dockerignore_does(patterns: list[str], ignored: list[str], kept: list[str]) -> None:
    is_ignored = as_predicate(patterns)

    assert [path for path in ignored if not is_ignored(Path(path))] == []
    assert [path for path in kept if is_ignored(Path(path))] == []


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 50 + "b", "a" * 4000),
        ("**/" + "*a" * 50 + "b", "/".join(["a" * 250] * 15)),
        ("**/*a/" * 30 + "b", "/".join(["a"] * 1000)),
        ("**/" * 50 + "*b", "/".join(["a"] * 1000)),
        ("**/a*a*/*a*a/**/" * 10 + "b", "/".join(["a" * 30] * 100)),
    ],
)
def test_no_pattern_takes_long(pattern: str, path: str) -> None:
    is_ignored = as_predicate([pattern])
    begun = time.monotonic()

    assert not is_ignored(Path(path))
    assert time.monotonic() - begun < 2


def test_patterns_match_as_a_plain_search_finds() -> None:
    rng = random.Random(7)
    matching = 0
    for _ in range(1500):
        parts = [
            "".join(rng.choices("aab*?", k=rng.randint(1, 4))).replace("**", "*") for _ in range(rng.randint(1, 4))
        ]
        parts = [rng.choice([part, part, "**"]) for part in parts]
        names = ["".join(rng.choices("ab", k=rng.randint(1, 4))) for _ in range(rng.randint(1, 5))]

        is_match = as_predicate(["/".join(parts)])(Path("/".join(names)))

        assert is_match == any(search(parts, names[:count]) for count in range(1, len(names) + 1)), (parts, names)
        matching += is_match
    assert 150 < matching < 1350


def search(parts: list[str], names: list[str]) -> bool:
    """Whether a pattern matches these names, by trying everything."""
    if not parts:
        return not names
    if parts[0] == "**":
        if parts == ["**"]:
            return bool(names)
        return any(search(parts[1:], names[count:]) for count in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and search(parts[1:], names[1:])


def test_a_predicate_stays_itself() -> None:
    def is_large(path: Path) -> bool:
        return path.suffix == ".bin"

    assert as_predicate(is_large) is is_large


def test_a_single_string_is_refused() -> None:
    with pytest.raises(InvalidError, match="list of patterns"):
        as_predicate("*.log")


def test_matcher_is_a_predicate_and_its_inverse_is_the_rest() -> None:
    matcher = squall.FilePatternMatcher("**/*.py", "!**/test_*.py")

    assert matcher(Path("pkg/main.py"))
    assert not matcher(Path("pkg/test_main.py"))
    assert not matcher(Path("pkg/data.csv"))
    assert (~matcher)(Path("pkg/data.csv"))
    assert not (~matcher)(Path("pkg/main.py"))
    assert (~~matcher)(Path("pkg/main.py"))
    assert matcher.patterns == ["**/*.py", "!**/test_*.py"]
    assert repr(~matcher) == "~FilePatternMatcher('**/*.py', '!**/test_*.py')"


def test_directories_can_be_passed_over_unless_a_pattern_takes_files_back() -> None:
    assert FilePatternMatcher("data", "**/*.log").can_prune_directories()
    assert not FilePatternMatcher("data", "!data/keep").can_prune_directories()
    assert can_prune(FilePatternMatcher("data"))
    assert not can_prune(~FilePatternMatcher("data"))
    assert not can_prune(lambda path: True)


def test_directories_that_are_left_out_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "file").touch()
    (tmp_path / "main.py").touch()
    looked: list[str] = []

    class Noting(FilePatternMatcher):
        def __call__(self, file_path: Path) -> bool:
            looked.append(file_path.as_posix())
            return super().__call__(file_path)

    found = [file.remote_path for file in _mount.find_files(str(tmp_path), "", Noting("data"))]

    assert found == ["main.py"]
    assert looked == ["data", "main.py"]


def test_file_of_patterns_is_read_when_the_first_path_is_matched(tmp_path: Path) -> None:
    matcher = FilePatternMatcher.from_file(tmp_path / ".dockerignore")
    (tmp_path / ".dockerignore").write_text("# what is not for the image\n\n**/*.log\n!keep.log\n")

    assert matcher(Path("a/b.log"))
    assert not matcher(Path("keep.log"))
    assert matcher.patterns == ["**/*.log", "!keep.log"]
    assert not matcher.can_prune_directories()


def test_file_of_patterns_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    matcher = FilePatternMatcher.from_file(str(tmp_path / "missing"))

    with pytest.raises(InvalidError, match=r"from_file\('.*/missing'\): No such file or directory"):
        matcher(Path("a"))


def test_what_is_no_string_is_no_pattern() -> None:
    with pytest.raises(InvalidError, match="patterns are strings"):
        FilePatternMatcher(3)  # type: ignore[arg-type]
