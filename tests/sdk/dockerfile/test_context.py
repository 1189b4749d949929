"""Files of the context that COPY and ADD name, on real directories."""

from __future__ import annotations

import os
import socket
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from squall.exception import InvalidError
from squall.sdk._mount import Content
from squall.sdk.dockerfile import DockerfileError
from squall.sdk.dockerfile.context import Context, Fetch, Found, Link, ignore_of
from squall.sdk.dockerfile.records import Copy, Run
from squall.sdk.dockerfile.tree import DEPTH_MAX
from squall.sdk.file_pattern_matcher import FilePatternMatcher
from tests.sdk.dockerfile.reading import only, read


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A context, in a directory that is outside of it."""
    for name in ("a.txt", "b.txt", "src/main.py", "src/util.py", "src/deep/x.py", "src/deep/y.md", "we ird", ".hidden"):
        path = tmp_path / "context" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "context" / "src" / "empty").mkdir()
    (tmp_path / "secret").write_text("outside")
    return tmp_path / "context"


def find(
    top: Path, content: str, *ignored: str, files: dict[str, str] | None = None, follows_links: bool = False
) -> Found:
    context = Context(str(top), FilePatternMatcher(*ignored), files, follows_links=follows_links)
    return context.find(only(Copy, content))


def placed(found: Found) -> list[str]:
    """Whole paths in the image, as far as they are known."""
    directory = found.directory.template.rstrip("/")
    return [f"{directory}/{file.remote_path}" for file in found.files]


SRC = ["deep/x.py", "deep/y.md", "main.py", "util.py"]


@pytest.mark.parametrize(
    ("content", "paths"),
    [
        ("COPY a.txt /opt/b.txt", ["/opt/b.txt"]),
        ("COPY a.txt /opt/", ["/opt/a.txt"]),
        ("COPY a.txt /", ["/a.txt"]),
        ("COPY a.txt b", ["./b"]),
        ("COPY a.txt .", ["./a.txt"]),
        ("COPY a.txt ./sub/", ["sub/a.txt"]),
        ("COPY a.txt ../x", ["../x"]),
        ("WORKDIR /srv\nCOPY a.txt b", ["/srv/b"]),
        ("WORKDIR /srv\nCOPY a.txt .", ["/srv/a.txt"]),
        ("WORKDIR /srv\nCOPY a.txt /srv", ["/srv/a.txt"]),
        ("WORKDIR /srv/app\nCOPY a.txt ../b", ["/srv/b"]),
        ("COPY a.txt $HOME/b", ["${HOME}/b"]),
        ("COPY a.txt $HOME/x-b", ["${HOME}/x-b"]),
        ("COPY a.txt $HOME/", ["${HOME}/a.txt"]),
        ("COPY a.txt b.txt /opt/", ["/opt/a.txt", "/opt/b.txt"]),
        ('COPY ["we ird", "/opt/"]', ["/opt/we ird"]),
        ("COPY /a.txt ./b.txt /opt/", ["/opt/a.txt", "/opt/b.txt"]),
        ("COPY src /opt", [f"/opt/{name}" for name in SRC]),
        ("COPY src/ /opt/", [f"/opt/{name}" for name in SRC]),
        ("COPY src/. /opt/", [f"/opt/{name}" for name in SRC]),
        ("COPY src/../src/deep /opt", ["/opt/x.py", "/opt/y.md"]),
        ("COPY src/deep a.txt /opt/", ["/opt/a.txt", "/opt/x.py", "/opt/y.md"]),
        (
            "COPY . /",
            [f"/{name}" for name in [".hidden", "a.txt", "b.txt", *(f"src/{name}" for name in SRC), "we ird"]],
        ),
        ("COPY *.txt /opt/", ["/opt/a.txt", "/opt/b.txt"]),
        ("COPY [ab].txt /opt/", ["/opt/a.txt", "/opt/b.txt"]),
        ("COPY a.tx[t] /opt/c", ["/opt/c"]),
        ("COPY src/*.py /opt/", ["/opt/main.py", "/opt/util.py"]),
        ("COPY src/d* /opt", ["/opt/x.py", "/opt/y.md"]),
        ("COPY **/*.py /opt/", ["/opt/main.py", "/opt/util.py", "/opt/x.py"]),
        ("COPY **/**/x.py /opt/", ["/opt/x.py"]),
        ("COPY src/**/x.py /opt/", ["/opt/x.py"]),
        ("COPY missing* a.txt /opt/", ["/opt/a.txt"]),
        ("COPY missing* /opt/", []),
        ("COPY --parents src/deep/x.py a.txt /opt/", ["/opt/a.txt", "/opt/src/deep/x.py"]),
        ("COPY --parents src/./deep/x.py /opt/", ["/opt/deep/x.py"]),
        ("COPY --parents ./src/deep /opt/", ["/opt/src/deep/x.py", "/opt/src/deep/y.md"]),
        ("COPY --parents **/*.md /opt/", ["/opt/src/deep/y.md"]),
        ("COPY --exclude=*.md --exclude=util.py src /opt/", ["/opt/deep/x.py", "/opt/deep/y.md", "/opt/main.py"]),
        ("COPY --exclude=**/*.md src /opt/", ["/opt/deep/x.py", "/opt/main.py", "/opt/util.py"]),
        ("COPY --exclude=b.* *.txt /opt/", ["/opt/a.txt"]),
    ],
)
def test_files_go_where_docker_puts_them(top: Path, content: str, paths: list[str]) -> None:
    assert placed(find(top, content)) == paths


def test_files_are_those_of_this_machine(top: Path) -> None:
    (found,) = find(top, "COPY src/deep/x.py /opt/y").files

    assert Path(found.local_path).read_text() == "src/deep/x.py"


def test_one_file_may_go_into_a_directory_that_the_image_has(top: Path) -> None:
    assert find(top, "COPY a.txt /opt/b").may_be_directory
    assert not find(top, "COPY a.txt /opt/b/").may_be_directory
    assert not find(top, "COPY src /opt/b").may_be_directory


def test_directories_without_files_are_named(top: Path) -> None:
    assert find(top, "COPY src /opt").empty_directories == ("empty",)
    assert find(top, "COPY . /opt", "src/*", "!src/empty").empty_directories == ("src/empty",)
    assert find(top, "COPY . /opt", "src/**/*").empty_directories == ("src",)


def test_documents_and_urls_have_their_place(top: Path) -> None:
    found = find(top, "COPY <<EOF /etc/motd\nhi\nEOF")
    several = find(top, "COPY <<a <<b /etc/\n1\na\n2\nb")
    fetched = find(top, "ADD https://files.example/x/y.bin?z=1 /opt/")

    assert (found.directory.plain, found.contents) == ("/etc", (Content(b"hi\n", "motd"),))
    assert several.contents == (Content(b"1\n", "a"), Content(b"2\n", "b"))
    assert fetched.fetches == (Fetch("https://files.example/x/y.bin?z=1", "y.bin", "", False),)
    assert find(top, "ADD https://files.example/ /opt/z").fetches[0].path == "z"


@pytest.mark.parametrize(
    ("content", "ignored", "message"),
    [
        ("COPY missing /opt", (), "missing is not in the context"),
        ("COPY missing/x* /opt/", (), "missing/x* is not in the context"),
        ("COPY a.txt/x /opt", (), "a.txt/x is not in the context"),
        ("COPY ../secret /opt", (), "../secret is outside the context; give a context_dir="),
        ("COPY src/../../secret /opt", (), "is outside the context"),
        ("COPY /../secret /opt", (), "is outside the context"),
        ("COPY ../* /opt/", (), "is outside the context"),
        ("COPY a.txt /opt", ("*.txt",), "a.txt is left out of the context by ignore="),
        ("COPY src /opt", ("src",), "src is left out of the context"),
        ("COPY src /opt", ("*", "!a.txt"), "src is left out of the context"),
        ("COPY src/main.py /opt", ("src",), "src/main.py is left out of the context"),
        ("COPY a[ /opt", (), "the pattern a[: a bracket is not closed"),
        ("COPY *.txt /opt", (), "the pattern stands for 2 files, which need a directory"),
        ("COPY a.txt x${HOME}b", (), "the name of the target is in a variable that only the image has"),
        ("COPY --exclude=[z-a] a.txt /opt", (), "ignore pattern '[z-a]'"),
        ("ADD https://files.example/ /opt/", (), "the URL ends without the name of a file"),
    ],
)
def test_sources_that_cannot_be_copied_are_named_with_their_line(
    top: Path, content: str, ignored: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DockerfileError) as caught:
        find(top, content, *ignored)

    assert str(caught.value).startswith("Dockerfile, line 2: ")
    assert message in str(caught.value)


def test_what_is_ignored_is_not_copied(top: Path) -> None:
    assert placed(find(top, "COPY src /opt", "**/*.py", "!**/main.py")) == ["/opt/deep/y.md", "/opt/main.py"]
    assert placed(find(top, "COPY src /opt", "src", "!src/deep/x.py")) == ["/opt/deep/x.py"]
    assert placed(find(top, "COPY **/*.py /opt/", "src/deep")) == ["/opt/main.py", "/opt/util.py"]


def test_a_function_decides_too(top: Path) -> None:
    context = Context(str(top), lambda path: path.suffix != ".py")

    assert placed(context.find(only(Copy, "COPY . /o/"))) == ["/o/src/deep/x.py", "/o/src/main.py", "/o/src/util.py"]


_SOURCES = st.lists(
    st.sampled_from(
        ["a.txt", "src", "deep", "link", "up", "*", "**", "?", "[a-c]*", "[", "..", ".", "/", "/./", "\\\\", "x"]
    ),
    min_size=1,
    max_size=5,
).map("/".join)


@pytest.mark.long
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_SOURCES, st.booleans(), st.booleans(), st.lists(_SOURCES, max_size=2))
def test_any_source_is_found_or_refused(
    top: Path, source: str, keeps_parents: bool, follows_links: bool, ignored: list[str]
) -> None:
    for name, target in (("link", "src/deep"), ("src/up", "..")):
        if not (top / name).is_symlink():
            (top / name).symlink_to(target)
    flag = "--parents " if keeps_parents else ""

    try:
        found = find(top, f"COPY {flag}{source} /opt/", *ignored, follows_links=follows_links)
    except DockerfileError:
        return

    assert found.directory.plain == "/opt"
    for file in found.files:
        assert ".." not in file.remote_path.split("/")
        assert Path(file.local_path).resolve().is_relative_to(top)


# Which file of patterns


def test_patterns_beside_the_dockerfile_come_before_those_of_the_context(top: Path) -> None:
    dockerfile = str(top.parent / "Dockerfile")
    assert not ignore_of(dockerfile, str(top), None)(Path("a.txt"))

    (top / ".dockerignore").write_text("# ours\n*.txt\n")
    assert ignore_of(dockerfile, str(top), None)(Path("a.txt"))
    assert ignore_of("", str(top), None)(Path("a.txt"))

    Path(f"{dockerfile}.dockerignore").write_text("*.py\n")
    assert not ignore_of(dockerfile, str(top), None)(Path("a.txt"))
    assert ignore_of("", str(top), None)(Path("a.txt"))

    assert not ignore_of(dockerfile, str(top), [])(Path("a.py"))
    assert ignore_of(dockerfile, str(top), ["a*"])(Path("a.py"))


def test_patterns_that_cannot_be_read_are_said(top: Path) -> None:
    (top / ".dockerignore").write_bytes(b"\xff")
    with pytest.raises(DockerfileError, match=r"cannot read the ignore file .*\.dockerignore.*not UTF-8"):
        ignore_of("", str(top), None)
    with pytest.raises(InvalidError, match="list of patterns"):
        ignore_of("", str(top), "*.py")


# Files that are given


def test_given_files_are_in_the_context(top: Path) -> None:
    given = {"extra/key": str(top.parent / "secret"), "/a.txt": str(top / "b.txt")}

    assert placed(find(top, "COPY extra/key a.txt /opt/", files=given)) == ["/opt/a.txt", "/opt/key"]
    assert placed(find(top, "COPY extra /opt/", files=given)) == ["/opt/key"]
    assert placed(find(top, "COPY ex*/k* /opt/", "extra", files=given)) == ["/opt/key"]
    (taken,) = find(top, "COPY a.txt /opt/", files=given).files
    assert Path(taken.local_path).read_text() == "b.txt"
    tree = {"extra/tree": str(top / "src" / "deep")}
    assert placed(find(top, "COPY extra /opt/", files=tree)) == ["/opt/tree/x.py", "/opt/tree/y.md"]
    assert placed(find(top, "COPY extra/tree /opt/", files=tree)) == ["/opt/x.py", "/opt/y.md"]
    assert "/opt/extra/key" in placed(find(top, "COPY . /opt/", files=given))


def test_given_files_and_the_context_must_be_there(top: Path) -> None:
    with pytest.raises(DockerfileError, match=r"context_files .*there is no such file here"):
        find(top, "COPY a.txt /opt/", files={"x": str(top / "missing")})
    with pytest.raises(DockerfileError, match=r"context_dir .*there is no such directory here"):
        find(top / "a.txt", "COPY a.txt /opt/")


# Links and other strange things


def test_links_below_a_directory_stay_links(top: Path) -> None:
    (top / "src" / "to_file").symlink_to("main.py")
    (top / "src" / "to_directory").symlink_to("deep")
    (top / "src" / "out").symlink_to("../../secret")
    (top / "src" / "broken").symlink_to("nothing")

    found = find(top, "COPY src /opt")

    assert placed(found) == [f"/opt/{name}" for name in SRC]
    assert found.links == (
        Link("broken", "nothing"),
        Link("out", "../../secret"),
        Link("to_directory", "deep"),
        Link("to_file", "main.py"),
    )


def test_links_can_be_followed_inside_the_context(top: Path) -> None:
    (top / "src" / "to_file").symlink_to("main.py")
    (top / "src" / "to_directory").symlink_to("deep")
    (top / "src" / "absolute").symlink_to("/a.txt")
    (top / "src" / "out").symlink_to("../../secret")
    (top / "src" / "broken").symlink_to("nothing")
    (top / "src" / "ignored").symlink_to("../b.txt")

    found = find(top, "COPY src /opt", "b.txt", follows_links=True)

    added = ["absolute", "to_directory/x.py", "to_directory/y.md", "to_file"]
    assert placed(found) == [f"/opt/{name}" for name in sorted([*SRC, *added])]
    assert [link.path for link in found.links] == ["broken", "ignored", "out"]


def test_a_source_that_is_a_link_is_what_it_leads_to(top: Path) -> None:
    (top / "to_file").symlink_to("src/main.py")
    (top / "to_directory").symlink_to("src")
    (top / "twice").symlink_to("to_directory/deep")

    (found,) = find(top, "COPY to_file /opt/").files
    assert (found.remote_path, Path(found.local_path).read_text()) == ("to_file", "src/main.py")
    assert placed(find(top, "COPY to_directory /opt")) == [f"/opt/{name}" for name in SRC]
    assert placed(find(top, "COPY to_directory/deep/x.py twice/y.md /opt/")) == ["/opt/x.py", "/opt/y.md"]
    assert placed(find(top, "COPY to_f* /opt/")) == ["/opt/to_file"]


def test_what_a_link_leads_to_is_left_out_by_its_own_name(top: Path) -> None:
    (top / "link").symlink_to("src")

    assert placed(find(top, "COPY link /opt", "src/deep", "link/main.py")) == ["/opt/main.py", "/opt/util.py"]
    assert placed(find(top, "COPY . /opt", "*", "!src/deep", "!link", follows_links=True)) == [
        "/opt/link/deep/x.py",
        "/opt/link/deep/y.md",
        "/opt/src/deep/x.py",
        "/opt/src/deep/y.md",
    ]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("../secret", "link is a link that leads out of the context"),
        ("src/../../secret", "link is a link that leads out of the context"),
        ("{top}/a.txt", "link is a link to what is not in the context"),
        ("link", "link is a link that leads in circles"),
        ("nothing", "link is a link to what is not in the context"),
        ("a.txt", "link is left out of the context"),
    ],
)
def test_links_that_lead_nowhere_are_said(top: Path, target: str, message: str) -> None:
    (top / "link").symlink_to(target.format(top=top))

    with pytest.raises(DockerfileError, match=message):
        find(top, "COPY link /opt", "a.txt")


def test_followed_links_without_an_end_are_said(top: Path) -> None:
    (top / "src" / "up").symlink_to("..")

    assert find(top, "COPY src /opt").links == (Link("up", ".."),)
    with pytest.raises(DockerfileError, match="src/up is a link to a directory it is in"):
        find(top, "COPY src /opt", follows_links=True)


def test_names_that_are_no_text_are_said(top: Path) -> None:
    Path(os.fsdecode(bytes(top / "src") + b"/\xff.py")).touch()

    for content in ("COPY src /opt", "COPY src/* /opt/", "COPY . /opt"):
        with pytest.raises(DockerfileError, match=r"the name .*udcff.* is not UTF-8; rename it, or leave it out"):
            find(top, content)
    assert placed(find(top, "COPY src/main.py /opt/")) == ["/opt/main.py"]


def test_pipes_and_sockets_are_no_files(top: Path) -> None:
    os.mkfifo(top / "src" / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(top / "src" / "socket"))

        assert placed(find(top, "COPY src /opt")) == [f"/opt/{name}" for name in SRC]
        with pytest.raises(DockerfileError, match="src/pipe is neither a file nor a directory"):
            find(top, "COPY src/pipe /opt")
        with pytest.raises(DockerfileError, match="is neither a file nor a directory"):
            find(top, "ADD src/p* /opt/")


def test_trees_without_a_bottom_are_refused(top: Path) -> None:
    path = top / "deep"
    for _ in range(DEPTH_MAX + 1):
        path /= "d"
    path.mkdir(parents=True)

    with pytest.raises(DockerfileError, match="more than 200 directories deep"):
        find(top, "COPY . /opt")
    with pytest.raises(DockerfileError, match="more than 200 directories deep"):
        find(top, "COPY **/x /opt/")


# ADD and bind mounts


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_archives_are_for_unpacking(top: Path, mode: str) -> None:
    with tarfile.open(str(top / "archive"), mode) as archive:  # type: ignore[call-overload]
        archive.add(top / "a.txt", "a.txt")

    found = find(top, "ADD archive a.txt /opt/")

    assert [(Path(one.local_path).name, one.remote_path) for one in found.archives] == [("archive", "")]
    assert placed(found) == ["/opt/a.txt"]
    assert find(top, "ADD archive /opt").directory.plain == "/opt"
    assert placed(find(top, "ADD --unpack=false archive /opt/")) == ["/opt/archive"]
    assert placed(find(top, "COPY archive /opt/")) == ["/opt/archive"]


def test_archives_of_zstd_go_by_their_name(top: Path) -> None:
    for name in ("x.tar.zst", "y.zst"):
        (top / name).write_bytes(b"\x28\xb5\x2f\xfd")
    (top / "z.tar.zst").write_bytes(b"no")

    found = find(top, "ADD *.zst /opt/")

    assert [Path(one.local_path).name for one in found.archives] == ["x.tar.zst"]
    assert placed(found) == ["/opt/y.zst", "/opt/z.tar.zst"]


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b\x08rubbish", b"BZh9rubbish", b"\xfd7zXZ\x00rubbish", b"x" * 2000])
def test_what_only_looks_like_an_archive_is_a_file(top: Path, content: bytes) -> None:
    (top / "file").write_bytes(content)

    assert placed(find(top, "ADD file /opt/")) == ["/opt/file"]


def test_bind_mounts_show_files_of_the_context(top: Path) -> None:
    context = Context(str(top), FilePatternMatcher())
    run = only(
        Run,
        "WORKDIR /srv\nRUN --mount=source=a.txt,target=b.txt --mount=source=src,target=/src --mount=target=/all x",
    )

    file, directory, everything = [context.bind(run, mount) for mount in run.mounts]

    assert placed(file) == ["/srv/b.txt"]
    assert placed(directory) == [f"/src/{name}" for name in SRC]
    assert "/all/src/main.py" in placed(everything)


def test_only_files_of_the_context_are_looked_for(top: Path) -> None:
    (copy,) = read("FROM x AS a\nFROM y\nCOPY --from=a /b /c").image.instructions
    assert isinstance(copy, Copy)

    with pytest.raises(AssertionError):
        Context(str(top), FilePatternMatcher()).find(copy)
