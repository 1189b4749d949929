"""COPY and ADD as data."""

from __future__ import annotations

import pytest

from squall.sdk.dockerfile.copy import ends_as_directory
from squall.sdk.dockerfile.records import Copy, Inline
from squall.sdk.dockerfile.text import Text, Variable, text
from tests.sdk.dockerfile.reading import only, read, refusal


@pytest.mark.parametrize(
    ("content", "sources", "target"),
    [
        ("COPY a b", ("a",), "b"),
        ("COPY a b c/", ("a", "b"), "c/"),
        ('COPY ["a b", "c d/"]', ("a b",), "c d/"),
        ("COPY . .", (".",), "."),
        ("ENV d=/srv\nCOPY $d/x ${d}/y", ("/srv/x",), "/srv/y"),
        ("COPY a $HOME/b", ("a",), "${HOME}/b"),
        (r"COPY \$a b", ("$a",), "b"),
        ('COPY "a" b', ("a",), "b"),
        ("ARG v=1\nCOPY a-$v.txt b-${v}.txt", ("a-1.txt",), "b-1.txt"),
        ("ARG v\nCOPY a-${v:-1}${v:+x} b", ("a-1",), "b"),
        ("COPY a* b[0-9] c/", ("a*", "b[0-9]"), "c/"),
        ("WORKDIR /srv\nCOPY a b /srv", ("a", "b"), "/srv"),
    ],
)
def test_sources_and_target(content: str, sources: tuple[str, ...], target: str) -> None:
    found = only(Copy, content)

    assert (found.sources, found.target.template) == (sources, target)
    assert found.is_from_context
    assert not found.is_add


def test_flags() -> None:
    found = only(
        Copy,
        "ARG u=app\nCOPY --chown=$u:$GROUP --chmod=0755 --link --parents --exclude=*.md --exclude=docs a b/",
    )

    assert found.owner.template == "app:${GROUP}"
    assert found.mode == 0o755
    assert found.keeps_parents
    assert found.excludes == ("*.md", "docs")


@pytest.mark.parametrize(
    ("before", "workdir"),
    [
        ("", ""),
        ("WORKDIR /a", "/a"),
        ("WORKDIR /a\nWORKDIR b/../c", "/a/c"),
        ("WORKDIR a", ""),
        ("WORKDIR /a\nWORKDIR $HOME", ""),
        ("WORKDIR /a\nWORKDIR $HOME\nWORKDIR /b", "/b"),
    ],
)
def test_the_directory_is_known_once_a_workdir_is_absolute(before: str, workdir: str) -> None:
    assert only(Copy, f"{before}\nCOPY a b").workdir == workdir


def test_files_come_from_stages_by_name_and_number_and_from_images() -> None:
    found = read(
        """
        FROM debian AS One
        FROM debian
        COPY --from=one /a /
        COPY --from=0 /a /
        COPY --from=registry.example/tools:1 /a /b
        COPY --from=2 /a /
        FROM debian AS two
        """
    )

    copies = [one for one in found.stages[1].instructions if isinstance(one, Copy)]
    assert [(one.from_stage, one.from_image) for one in copies] == [
        (0, ""),
        (0, ""),
        (None, "registry.example/tools:1"),
        (2, ""),
    ]
    assert not any(one.is_from_context for one in copies)


def test_documents_are_files() -> None:
    found = only(
        Copy,
        """
        ARG v=1
        COPY <<a.txt <<'b.txt' plain /d/
        $v "quoted" \\$v
        a.txt
        $v \\$v
        b.txt
        """.replace("        ", ""),
    )

    assert found.inline == (Inline("a.txt", '1 "quoted" $v\n'), Inline("b.txt", "$v \\$v\n"))
    assert found.sources == ("plain",)


def test_add_takes_urls() -> None:
    digest = "0" * 64
    found = only(Copy, f"ADD --checksum=sha256:{digest} --unpack=true https://files.example/a.tar.gz /opt/")

    assert found.is_add
    assert found.urls == ("https://files.example/a.tar.gz",)
    assert found.checksum == f"sha256:{digest}"
    assert found.unpacks is True
    assert found.sources == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("COPY", "COPY says nothing; write COPY source… target"),
        ("COPY --from=x", "COPY has neither source nor target"),
        ("COPY a", "COPY has no target after 'a'"),
        ('COPY ["a"]', "COPY has no target after 'a'"),
        ("COPY a b c", "several sources need a directory: end the target with '/'"),
        ("COPY <<a <<b c\na\nb", "several sources need a directory"),
        ("COPY a $HOME", "the target ends in a variable that only the image has"),
        ("COPY a $HOME b/", "the source $HOME needs HOME, which no ARG or ENV of the file sets"),
        ("ARG v\nCOPY a-$v b", "the source a-$v needs v, which has no value: give it in build_args="),
        ("ARG v\nENV v=$HOME\nCOPY a-${v:-x} b", "the source a-${v:-x} needs v, which no ARG or ENV of the file sets"),
        ("ENV v=\nCOPY $v b", "the source '$v' is empty"),
        ("ENV v=\nCOPY a $v", "the target is empty"),
        ("COPY <<EOF /x\n$HOME\nEOF", "the document (<<'EOF' keeps all as it is) needs HOME"),
        ('COPY "a b" c', 'a " is not closed'),
        ("COPY https://files.example/x /x", "COPY takes no URL; ADD does"),
        ("ADD git@host.example:a/b.git /x", "a git repository cannot be a source here"),
        ("ADD https://host.example/a/b.git#main /x", "a git repository cannot be a source here"),
        ("ADD --from=x a b", "ADD has no flag --from"),
        ("ADD --checksum=sha256:1 https://files.example/x /x", "--checksum=sha256:1 cannot be read"),
        ("ADD --checksum=sha256:" + "0" * 64 + " a /x", "--checksum is for one URL"),
        ("COPY --chmod=u+x a b", "--chmod=u+x cannot be read; write it in digits"),
        ("COPY --chmod=99 a b", "--chmod=99 cannot be read"),
        ("COPY --chmod=000 a b", "--chmod=000 cannot be read"),
        ("COPY --chmod=17777 a b", "--chmod=17777 cannot be read"),
        ("COPY --chwon=a a b", "COPY has no flag --chwon; did you mean --chown?"),
        ("COPY --chown a b", "--chown needs a value"),
        ("COPY --chown=a --chown=b a b", "--chown is there twice"),
        ("COPY --link=perhaps a b", "--link is true or false, not 'perhaps'"),
        ("COPY --from=5 a b", "there is no stage number 5; the first is 0, the last 0"),
        ("COPY --from=99999999999999999999 a b", "there is no stage number 9999"),
        (
            "ARG v=1\nCOPY --from=tools:$v a b",
            "from=tools:$v may have no variable; add a stage, `FROM tools:$v AS name`",
        ),
        ("RUN x\nCOPY --from=self a b", "line 3: stage self is made from itself"),
    ],
)
def test_wrong_copies_say_what_to_do(content: str, message: str) -> None:
    assert message in refusal(f"FROM x AS self\n{content}")


@pytest.mark.parametrize(
    ("target", "is_directory"),
    [
        (text("a/"), True),
        (text("."), True),
        (text("a/.."), True),
        (text("a"), False),
        (text("a.."), False),
        (Text((Variable("HOME"), "/")), True),
        (Text((Variable("HOME"), "/.")), True),
        (Text((Variable("HOME"), ".")), False),
        (Text((Variable("HOME"),)), False),
        (Text(), False),
    ],
)
def test_how_a_target_says_that_it_is_a_directory(target: Text, is_directory: bool) -> None:
    assert ends_as_directory(target) is is_directory
