"""From lines to instructions: directives, comments, continuations, here-documents, flags."""

from __future__ import annotations

import pytest

from squall.sdk.dockerfile.error import DockerfileError
from squall.sdk.dockerfile.lines import CHARS_MAX, INSTRUCTIONS_MAX, Lines, Written, json_words, words


def instructions(content: str) -> list[Written]:
    return list(Lines("Dockerfile", content).instructions())


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", []),
        ("# nothing\n\n   \n", []),
        ("RUN a", [(1, "RUN", "a")]),
        ("  run   a  b  \n", [(1, "RUN", "a  b")]),
        ("\ufeffFROM x\r\nRUN a\r\n", [(1, "FROM", "x"), (2, "RUN", "a")]),
        ("RUN a \\\n  b\nRUN c", [(1, "RUN", "a   b"), (3, "RUN", "c")]),
        ("RUN a \\  \n# comment\n\n   # another\n  b", [(1, "RUN", "a   b")]),
        ("RUN a # no comment", [(1, "RUN", "a # no comment")]),
        ("RUN a \\", [(1, "RUN", "a")]),
        ("RUN a \\\\\nRUN b", [(1, "RUN", "a \\\\"), (2, "RUN", "b")]),
        ("RUN\\\n a", [(1, "RUN", "a")]),
        ("\tRUN\ta", [(1, "RUN", "a")]),
        ("# escape=`\nRUN a `\n b \\\nRUN c", [(2, "RUN", "a  b \\"), (4, "RUN", "c")]),
        ("#  Escape = `  \n# syntax=docker/dockerfile:1\n# check=skip=all\nRUN a`\nb", [(4, "RUN", "ab")]),
        ("# a comment\n# escape=`\nRUN a\\\nb", [(3, "RUN", "ab")]),
        ("#other=x\n#escape=`\nRUN a\\\nb", [(3, "RUN", "ab")]),
        ("\n# escape=`\nRUN a\\\nb", [(3, "RUN", "ab")]),
    ],
)
def test_lines_are_joined_and_comments_dropped(content: str, found: list[tuple[int, str, str]]) -> None:
    assert [(one.line.number, one.keyword, one.rest) for one in instructions(content)] == found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("# escape=`\n# escape=`", "line 2: the directive escape is there twice"),
        ("# escape=x", r"line 1: escape can be \\ or ` only"),
        ("# syntax=somebody/frontend:2", "line 1: a syntax other than that of Docker"),
        ("RUN a\nRUN b\0", "line 2: there is a zero byte"),
        ("RUN \udcff", "it is not UTF-8, at character 5"),
        ("x" * (CHARS_MAX + 1), "more than 2097152 characters"),
        ("RUN a\n" * (INSTRUCTIONS_MAX + 1), "line 5001: more than 5000 instructions"),
        ("RUN a <<EOF\nb\nEOF2\n", "line 1: the here-document <<EOF has no end; write EOF alone"),
        ("COPY <<A <<B /x/\nA\n", "the here-document <<B has no end"),
        ("RUN <<''\n", "<<'' is no here-document"),
    ],
)
def test_text_that_is_none_is_refused(content: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message):
        instructions(content)


@pytest.mark.parametrize(
    ("content", "documents"),
    [
        ("RUN <<EOF\na\n b\nEOF\nRUN c", [("EOF", "a\n b\n", False)]),
        ("RUN cat <<EOF > /x\na\nEOF\nRUN c", [("EOF", "a\n", False)]),
        ("RUN <<'EOF'\na\nEOF\nRUN c", [("EOF", "a\n", True)]),
        ('RUN <<"EOF"\na\nEOF\nRUN c', [("EOF", "a\n", True)]),
        ("RUN <<-EOF\n\ta\n\t\tb\n\tEOF\nRUN c", [("EOF", "a\nb\n", False)]),
        ("RUN 3<<EOF\na\nEOF\nRUN c", [("EOF", "a\n", False)]),
        (
            "COPY <<a.txt <<b.txt /d/\n1\na.txt\n# 2\\\n\nb.txt\nRUN c",
            [("a.txt", "1\n", False), ("b.txt", "# 2\\\n\n", False)],
        ),
        ("RUN <<EOF\nEOF\nRUN c", [("EOF", "", False)]),
        ("ONBUILD RUN <<EOF\nFROM\nEOF\nRUN c", [("EOF", "FROM\n", False)]),
        ("RUN echo '<<EOF' \"<<EOF\"\nRUN c", []),
        ("RUN x<<EOF\nRUN c", []),
        ("RUN cat <<<EOF\nRUN c", []),
        ("ENV a=<<EOF\nRUN c", []),
        ("CMD cat <<EOF\nRUN c", []),
    ],
)
def test_documents_go_with_their_instruction(content: str, documents: list[tuple[str, str, bool]]) -> None:
    first, second = instructions(content)

    assert [(one.name, one.content, one.is_literal) for one in first.heredocs] == documents
    assert (second.keyword, second.rest) == ("RUN", "c")


@pytest.mark.parametrize(
    ("content", "flags", "rest"),
    [
        ("COPY --from=a --link b c", (("from", "a"), ("link", None)), "b c"),
        ("COPY --chown=  b c", (("chown", ""),), "b c"),
        ('RUN --mount="type=cache,target=/a b" x', (("mount", "type=cache,target=/a b"),), "x"),
        ("RUN --mount=type=cache,target=/a \\\n  --network=default \\\n  x --y", None, "x --y"),
        ("RUN -- --x", (), "--x"),
        ("RUN a --b", (), "a --b"),
        ("RUN --a=x\\ y z", (("a", "x y"),), "z"),
    ],
)
def test_flags_are_in_front(content: str, flags: tuple[tuple[str, str | None], ...] | None, rest: str) -> None:
    (found,) = instructions(content)

    assert found.rest == rest
    assert found.flags == flags or flags is None


@pytest.mark.parametrize(
    ("rest", "found"),
    [
        ('["a", "b c"]', ("a", "b c")),
        ("[]", ()),
        ('[ "a" ]', ("a",)),
        ('["\\u00e9\\n"]', ("é\n",)),
        ("['a']", None),
        ('["a"', None),
        ("[1]", None),
        ('["a"] && b', None),
        ("[ -f x ] && y", None),
        ("a", None),
        ("[" * 100_000, None),
    ],
)
def test_lists_are_json_or_none(rest: str, found: tuple[str, ...] | None) -> None:
    (written,) = instructions(f"RUN {rest}")

    assert json_words(written) == found


@pytest.mark.parametrize("rest", ['["\\u0000"]', '["\\ud800"]'])
def test_a_list_with_impossible_arguments_is_refused(rest: str) -> None:
    with pytest.raises(DockerfileError, match="a character that no argument can have"):
        json_words(instructions(f"RUN {rest}")[0])


def test_words_keep_quotes_together() -> None:
    assert words(r"""a="b c" d='e "f' g\ h i\"j k"l'm"n""", "\\") == [
        'a="b c"',
        "d='e \"f'",
        r"g\ h",
        r"i\"j",
        'k"l\'m"n',
    ]


def test_long_lines_are_cut_in_messages() -> None:
    (found,) = instructions("RUN " + "x" * 500 + "\x1b[31m")

    assert len(str(found.line.error("no"))) < 250
    assert "\x1b" not in str(instructions("RUN \x1b[31m")[0].line.error("\x1b"))
