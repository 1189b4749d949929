"""What skopeo says becomes a cause and a way out; its own words stay in the error."""

from __future__ import annotations

import pytest

from squall.agent.image.machine.tool import ToolFailed
from squall.agent.image.oci import refusal
from squall.agent.image.oci.credentials import Credentials, auth_file, place_of, registry_of
from squall.agent.image.oci.refusal import refusal as refused
from squall.agent.image.oci.skopeo import reference_of, repository_of

DIGEST = "sha256:" + "0" * 64


def said(words: str) -> ToolFailed:
    return ToolFailed("", f'time="2026-11-29T05:27:58Z" level=fatal msg="{words}"')


@pytest.mark.parametrize(
    ("words", "kind", "remedy"),
    [
        ("reading manifest 2 in r.test/one: manifest unknown: manifest unknown", refusal.MISSING, "no such image"),
        ("reading manifest 1 in r.test/one: unauthorized: authentication required", refusal.UNAUTHORIZED, "r.test"),
        ("Get https://r.test/v2/: http: server gave HTTP response to HTTPS client", refusal.NO_TLS, "insecure = true"),
        (
            "Get https://r.test/v2/: x509: certificate signed by unknown authority",
            refusal.UNKNOWN_CERTIFICATE,
            "certs.d",
        ),
        ("lookup r.test on 192.0.2.1:53: no such host", refusal.UNREACHABLE, "no network: r.test cannot be reached"),
        ("lookup r.test: Temporary failure in name resolution", refusal.UNREACHABLE, "DNS"),
        ("dial tcp 192.0.2.1:443: connect: connection refused", refusal.UNREACHABLE, "firewall"),
        ("writing blob: unexpected EOF", refusal.TORN, "try again"),
        ("writing blob: Digest did not match, expected sha256:a, got sha256:b", refusal.DAMAGED, "push it again"),
        ("writing blob: write /x: no space left on device", refusal.DISK_FULL, "make room"),
        ("no image found in manifest list for architecture amd64", refusal.NO_PLATFORM, "other machines"),
        ("toomanyrequests: You have reached your pull rate limit", refusal.BUSY, "later"),
        ("something new", refusal.UNKNOWN, "something new"),
    ],
)
def test_words_of_skopeo_are_told_apart(words: str, kind: str, remedy: str) -> None:
    found = refused("r.test/one:2", said(words))

    assert found.kind == kind
    assert found.is_missing == (kind == refusal.MISSING)
    assert str(found).startswith("r.test/one:2: ")
    assert remedy in str(found)
    assert words in str(found)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("writing blob: Digest did not match, expected sha256:a, got sha256:b", "the file is damaged"),
        ("reading blob sha256:a: file not found in archive", "the file is damaged"),
        ("writing blob: unexpected EOF", "is not all of it"),
        ("writing blob: write /x: no space left on device", "make room"),
        ("access to it is denied", "access to it is denied"),
    ],
)
def test_no_registry_is_blamed_for_a_file(words: str, remedy: str) -> None:
    found = str(refused("app.tar", said(words), is_in_registry=False))

    assert found.startswith("app.tar: ")
    assert remedy in found
    assert words in found
    assert place_of("app.tar") not in found


def test_stopped_program_says_only_why() -> None:
    found = refused("r.test/one:2", ToolFailed("stopped after 5 s", ""))

    assert (str(found), found.is_silent) == ("r.test/one:2: stopped after 5 s", False)


def test_registry_that_does_not_answer_is_no_network() -> None:
    found = refused("r.test/one:2", ToolFailed("no answer within 5 s", "", is_silent=True))

    assert str(found).startswith(
        "r.test/one:2: no answer within 5 s; no network: r.test cannot be reached; check its name"
    )
    assert (found.kind, found.is_silent) == (refusal.UNREACHABLE, True)


@pytest.mark.parametrize(
    ("name", "repository", "reference"),
    [
        ("one", "one", "one"),
        ("r.test:5000/one", "r.test:5000/one", "r.test:5000/one"),
        ("r.test:5000/a/one:2", "r.test:5000/a/one", "r.test:5000/a/one:2"),
        (f"one:2@{DIGEST}", "one", f"one@{DIGEST}"),
        (f"r.test:5000/one@{DIGEST}", "r.test:5000/one", f"r.test:5000/one@{DIGEST}"),
    ],
)
def test_name_is_taken_apart(name: str, repository: str, reference: str) -> None:
    assert (repository_of(name), reference_of(name)) == (repository, reference)


def test_credentials_are_for_the_registry_of_the_name_and_on_no_disk() -> None:
    credentials = Credentials("reader", "s3cret")

    with auth_file("r.test:5000/one:1", credentials) as (options, descriptors):
        assert options[1] == f"/proc/self/fd/{descriptors[0]}"
        with open(options[1]) as file:
            content = file.read()

    assert '"r.test:5000"' in content
    assert "s3cret" not in repr(credentials) + " ".join(options) + content
    assert registry_of("python:3") == ""
    assert place_of("python:3") != ""


def test_without_credentials_those_of_the_machine_count() -> None:
    with auth_file("r.test/one", None) as given:
        assert given == ((), ())
