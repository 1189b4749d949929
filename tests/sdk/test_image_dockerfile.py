"""Dockerfiles as steps: what each line becomes, and what is refused with its line."""

from __future__ import annotations

import tarfile
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import squall
from squall.exception import InvalidError
from squall.protocol import image_steps
from squall.protocol.image import ImageSpec, ImageStep, StepMount
from squall.sdk import _mount
from squall.sdk._image_steps import Step, flat
from squall.sdk._mount import Mount
from tests.sdk.double import ServerDouble


class Project:
    """A directory with a Dockerfile and the files that it copies."""

    def __init__(self, top: Path) -> None:
        self.top = top

    def file(self, path: str, content: str = "x") -> Project:
        place = self.top / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
        return self

    def image(self, content: str, **options: Any) -> squall.Image:
        """The image of a Dockerfile that is written there."""
        self.file("Dockerfile", textwrap.dedent(content).lstrip("\n"))
        return squall.Image.from_dockerfile(self.top / "Dockerfile", **{"context_dir": self.top, **options})

    def made(self, content: str, **options: Any) -> list[ImageStep]:
        return sent(self.image(content, **options))

    def refusal(self, content: str, **options: Any) -> str:
        with pytest.raises(InvalidError) as caught:
            self.made(content, **options)
        return str(caught.value)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def sent(image: squall.Image) -> list[ImageStep]:
    """The steps as a server gets them, and would take them."""
    made = [_step(step) for step in flat(image.steps)]
    image_steps.check(ImageSpec(tuple(made)))
    return made


def _step(step: Step) -> ImageStep:
    arguments = dict(step.arguments)
    if step.files is not None:
        arguments["mount_id"] = "mo-0123456789"
    if step.image is not None:
        arguments["image_id"] = "im-" + "".join(f"{ord(char):x}" for char in " ".join(names(step.image)))
    made: ImageStep = getattr(image_steps, step.name)(**arguments)
    return made


def names(image: squall.Image) -> list[str]:
    """What an image begins with, and the kinds of its other steps."""
    steps = flat(image.steps)
    return [str(step.arguments.get("tag", step.name)) for step in steps]


def mounts(image: squall.Image) -> list[list[str]]:
    """The paths in the mount of each step that has one."""
    return [[file.path for file in mount.manifest.files] for mount in _mounts(image)]


def _mounts(image: squall.Image) -> list[Mount]:
    return [step.files() for step in flat(image.steps) if step.files is not None]


def untitled(steps: list[ImageStep]) -> list[ImageStep]:
    return [replace(step, title="") for step in steps]


def test_each_line_is_a_step(project: Project) -> None:
    made = project.made(
        """
        FROM debian:12-slim
        ENV A=1 B="two words"
        WORKDIR /srv/app
        USER app:users
        SHELL ["/bin/bash", "-c"]
        RUN echo hello \\
            && true
        RUN ["/bin/prog", "an argument"]
        ENTRYPOINT ["/entry"]
        CMD run it
        LABEL of=nothing
        EXPOSE 80
        """
    )

    assert untitled(made) == [
        image_steps.from_registry("debian:12-slim"),
        image_steps.env({"A": "1", "B": "two words"}),
        image_steps.workdir("/srv/app"),
        image_steps.user("app:users"),
        image_steps.shell(("/bin/bash", "-c")),
        image_steps.run_commands(("echo hello     && true",)),
        image_steps.run_commands(arguments=("/bin/prog", "an argument")),
        image_steps.entrypoint(("/entry",)),
        image_steps.cmd(("/bin/bash", "-c", "run it")),
    ]
    assert made[5].title == "line 6: RUN echo hello     && true"


def test_nothing_is_read_before_the_image_is_used(project: Project) -> None:
    image = squall.Image.from_dockerfile(project.top / "Dockerfile").run_commands("true")

    with pytest.raises(InvalidError, match=r"cannot read the Dockerfile .*/Dockerfile: No such file"):
        flat(image.steps)
    project.file("Dockerfile", "FROM scratch\n")
    assert [step.name for step in flat(image.steps)] == ["from_scratch", "run_commands"]


def test_arguments_are_in_the_environment_of_run_lines_alone(project: Project) -> None:
    made = project.made(
        """
        ARG SERIES=11
        FROM debian:$SERIES
        RUN before
        ARG SERIES
        ARG NAME=app
        ENV GREETING=hello-$NAME
        RUN after
        """,
        build_args={"SERIES": "12"},
        env={"ONLY": "here"},
    )

    assert made[0].tag == "debian:12"
    assert [step.env for step in made if step.kind == "run_commands"] == [
        {"ONLY": "here"},
        {"ONLY": "here", "SERIES": "12", "NAME": "app"},
    ]
    assert [step.vars for step in made if step.vars] == [{"GREETING": "hello-app"}]


def test_argument_that_no_line_asks_for_is_said(project: Project) -> None:
    with pytest.warns(UserWarning, match=r"Image\.from_dockerfile: build_args that no ARG asks for: VERSON"):
        project.made("FROM debian\nARG VERSION=1\n", build_args={"VERSON": "2"})


def test_variables_of_the_base_are_left_for_the_node(project: Project) -> None:
    project.file("a")
    made = project.made(
        """
        FROM debian
        ENV PATH=/app/bin:$PATH PRICE=\\$5
        ENV PLAIN=\\$5
        WORKDIR ${HOME:-/root}/x
        USER ${APP_USER}
        COPY --chown=$APP_USER a $APP_DIR/
        COPY --from=other:1 /a ${APP_DIR:-/opt}/
        """
    )

    assert untitled(made[1:]) == [
        image_steps.env({"PATH": "/app/bin:${PATH}", "PRICE": "$$5"}, is_template=True),
        image_steps.env({"PLAIN": "$5"}),
        image_steps.workdir("${HOME:-/root}/x", is_template=True),
        image_steps.user("${APP_USER}", is_template=True),
        image_steps.copy("mo-0123456789", "${APP_DIR}/", user="${APP_USER}", is_template=True),
        image_steps.copy_from(made[6].image_id, ("/a",), "${APP_DIR:-/opt}/", is_directory=True, is_template=True),
    ]


def test_stages_become_images_and_what_stands_on_one_its_steps(project: Project) -> None:
    image = project.image(
        """
        FROM golang:1 AS shared
        RUN shared
        FROM shared AS build
        RUN build
        FROM debian AS unused
        RUN never
        FROM shared
        COPY --from=build /out/a /out/b /bin/
        COPY --from=0 /etc/x /etc/y
        COPY --from=build --chown=1:2 --chmod=750 /out /srv
        COPY --from=ghcr.example/uv:0.9 /uv /bin/uv
        """
    )

    steps = flat(image.steps)

    assert [step.name for step in steps] == ["from_registry", "run_commands", *["copy_from"] * 4]
    of = [step.image for step in steps[2:]]
    assert [names(one) for one in of if one] == [
        ["golang:1", "run_commands", "run_commands"],
        ["golang:1", "run_commands"],
        ["golang:1", "run_commands", "run_commands"],
        ["ghcr.example/uv:0.9"],
    ]
    assert of[0] is of[2]
    made = sent(image)[2:]
    assert [(step.sources, step.path, step.is_directory) for step in made] == [
        (("/out/a", "/out/b"), "/bin/", True),
        (("/etc/x",), "/etc/y", False),
        (("/out",), "/srv", False),
        (("/uv",), "/bin/uv", False),
    ]
    assert (made[2].user, made[2].mode) == ("1:2", 0o750)


def test_images_for_one_build_are_built_before_it(server: ServerDouble, project: Project) -> None:
    image = project.file("a").image(
        "FROM debian AS build\nRUN make\nFROM scratch\nCOPY --from=build /x /\nCOPY --from=build /y /\nCOPY a /\n"
    )

    image.build()

    kinds = [[step.kind for step in spec.steps] for spec in server.images]
    assert kinds == [["from_registry", "run_commands"], ["from_scratch", "copy", "copy", "copy"]]
    assert len({step.image_id for step in server.images[1].steps if step.image_id}) == 1
    assert [[file.path for file in mount.files] for mount in server.mounts.values()] == [["a"]]


def test_stages_that_need_no_other_are_built_side_by_side(server: ServerDouble, project: Project) -> None:
    image = project.image(
        "FROM debian AS one\nRUN one\nFROM debian AS two\nRUN two\nFROM debian AS three\nCOPY --from=one /x /x\n"
        "FROM scratch\nCOPY --from=one /x /\nCOPY --from=two /y /\nCOPY --from=three /z /\n"
    )
    server.builds_at_once = 2  # neither of the first two is done before the other has begun

    image.build()

    (commands, others) = ([step.commands for spec in server.images[:2] for step in spec.steps[1:]], server.images[2:])
    assert sorted(commands) == [("one",), ("two",)]
    assert [spec.steps[0].kind for spec in others] == ["from_registry", "from_scratch"]


@pytest.mark.parametrize(
    ("source", "pattern"),
    [("/a*", "/a*"), ("/[^ab]", "/[!ab]"), (r"/\\*x", "/[*]x"), (r"/\\a", "/a"), ("/a?", "/a?")],
)
def test_patterns_in_other_images_are_as_nodes_read_them(project: Project, source: str, pattern: str) -> None:
    (*_, made) = project.made(f"FROM debian\nCOPY --from=other {source} /x/\n")

    assert made.sources == (pattern,)


def test_files_of_the_context_are_copied_without_those_ignored(project: Project) -> None:
    project.file("src/a.py").file("src/b.log").file("Dockerfile.dockerignore", "**/*.log\nDockerfile*\n")
    image = project.image("FROM debian\nWORKDIR /srv\nCOPY . app\nCOPY src/ /opt/src/\nCOPY src/a.py ./\n")

    assert mounts(image) == [["src/a.py"], ["a.py"], ["a.py"]]
    assert [step.path for step in sent(image)[2:]] == ["/srv/app", "/opt/src", "/srv"]
    assert mounts(project.image("FROM debian\nCOPY src /x\n", ignore=["**/*.py"])) == [["b.log"]]


def test_one_file_and_a_target_that_may_be_a_directory_is_for_the_node(project: Project) -> None:
    project.file("conf/a[1].py")
    image = project.image(
        """
        FROM debian
        COPY conf/a[[]1].py /usr/local/bin
        COPY conf/*.py bin/tool
        COPY --from=other /x /usr/local/bin
        COPY <<EOF /etc/app.conf
        a=1
        EOF
        """
    )

    assert mounts(image) == [["a[1].py"], ["a[1].py"], ["EOF"]]
    assert [(step.sources, step.path, step.is_template) for step in sent(image)[1:]] == [
        (("a[[]1].py",), "/usr/local/bin", False),
        (("a[[]1].py",), "bin/tool", True),
        (("/x",), "/usr/local/bin", False),
        (("EOF",), "/etc/app.conf", False),
    ]
    assert b"a=1\n" in _mounts(image)[2].contents.values()


def test_links_and_empty_directories_stay_what_they_are(project: Project) -> None:
    project.file("src/a")
    (project.top / "src/empty").mkdir()
    (project.top / "src/link").symlink_to("../../../etc/passwd")

    (*_, made) = project.made("FROM debian\nCOPY src /srv\n")

    assert (made.links, made.directories) == ({"link": "../../../etc/passwd"}, ("empty",))


def test_archives_that_are_added_are_unpacked_by_the_node(project: Project) -> None:
    project.file("plain")
    for name in ("a.tar", "b.tar.gz"):
        with tarfile.open(project.top / name, "w:gz" if name.endswith("gz") else "w") as archive:
            archive.add(project.top / "plain", "inner")
    image = project.image(
        """
        FROM scratch
        ADD --chown=1:2 a.tar /x
        ADD a.tar b.tar.gz plain /y/
        COPY a.tar /
        ADD --unpack=false a.tar /
        """
    )

    assert mounts(image) == [["000000"], ["000000", "000001"], ["plain"], ["a.tar"], ["a.tar"]]
    assert [(step.path, step.is_archive, step.user) for step in sent(image)[1:]] == [
        ("/x", True, "1:2"),
        ("/y", True, ""),
        ("/y", False, ""),
        ("/", False, ""),
        ("/", False, ""),
    ]


def test_context_files_are_in_the_context(project: Project) -> None:
    project.file("elsewhere/real.txt")
    image = squall.Image.debian_slim("3.11").dockerfile_commands(
        ["COPY data/given.txt /srv/", "RUN cat /srv/given.txt"],
        "ENV X=1",
        context_files={"data/given.txt": str(project.top / "elsewhere/real.txt")},
        context_dir=project.top / "elsewhere",
    )

    assert mounts(image) == [["given.txt"]]
    assert [step.kind for step in sent(image)] == ["debian_slim", "copy", "run_commands", "env"]


def test_lines_without_a_word_to_do_are_no_step() -> None:
    base = squall.Image.debian_slim("3.11")

    assert base.dockerfile_commands() is base
    assert len(sent(base.dockerfile_commands("LABEL a=b"))) == 1


def test_registry_image_is_set_up_before_its_python() -> None:
    image = squall.Image.from_registry("alpine:3", setup_dockerfile_commands=["RUN apk add bash"], add_python="3.12")

    assert [step.kind for step in sent(image)] == ["from_registry", "run_commands", "add_python"]


def test_python_is_added_last_and_everything_is_forced(project: Project) -> None:
    made = project.file("a").made(
        "FROM debian AS x\nFROM debian\nCOPY a /\nCOPY --from=x /a /b\nRUN true\n", add_python="3.12", force_build=True
    )

    assert [(step.kind, step.force_build) for step in made] == [
        ("from_registry", True),
        ("copy", True),
        ("copy", True),
        ("run_commands", True),
        ("add_python", True),
    ]


def test_secrets_go_to_run_lines_and_to_the_registry_of_the_base_alone(project: Project) -> None:
    token, login = squall.Secret.from_dict({"T": "t"}), squall.Secret.from_dict({"REGISTRY_USERNAME": "u"})
    image = project.image(
        """
        FROM my.registry:5000/team/build AS build
        RUN a
        FROM my.registry:5000/team/run
        COPY --from=build /a /a
        COPY --from=other.registry/uv /uv /uv
        COPY --from=library/uv /uv /uv
        RUN b
        """,
        secrets=[token],
        registry_secret=login,
    )

    steps = flat(image.steps)

    assert [step.secrets for step in steps] == [(login,), (), (), (), (token,)]
    of = [flat(step.image.steps) for step in steps if step.image is not None]
    assert [[step.secrets for step in one] for one in of] == [[(login,), (token,)], [()], [()]]


def test_run_mounts_are_room_and_files_that_the_image_does_not_get(project: Project) -> None:
    project.file("uv.lock").file("src/a").file("src/b/c")
    (project.top / "src/link").symlink_to("a")
    image = project.image(
        """
        FROM debian
        WORKDIR /app
        RUN --mount=type=cache,target=/root/.cache/uv,sharing=locked \\
            --mount=type=bind,source=uv.lock,target=uv.lock \\
            --mount=type=bind,source=src,target=/src --mount=type=tmpfs,target=/scratch --network=default \\
            uv sync
        """
    )

    assert mounts(image) == [["bind-1/uv.lock", "bind-2/a", "bind-2/b/c", "bind-2/link"]]
    assert sent(image)[-1].mounts == (
        StepMount("/root/.cache/uv"),
        StepMount("/app/uv.lock", "bind-1/uv.lock"),
        StepMount("/src", "bind-2"),
        StepMount("/scratch"),
    )


def test_documents_are_commands_or_scripts(project: Project) -> None:
    image = project.image(
        """
        FROM debian
        RUN <<EOF
        set -e
        echo $HOME
        EOF
        RUN <<EOF
        #!/usr/bin/env  python3 -I
        print(1)
        EOF
        """
    )

    made = sent(image)

    assert made[1].commands == ("set -e\necho $HOME\n",)
    assert made[2].arguments == ("/usr/bin/env", "python3 -I", "/.squall-build/copy/script")
    assert mounts(image) == [["script"]]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("RUN --mount=type=secret,id=t x", "give secrets="),
        ("RUN --mount=type=ssh x", "type=ssh cannot be had"),
        ("RUN --mount=type=bind,from=other,target=/x y", "take the files by COPY --from"),
        ("RUN --mount=type=bind,target=/x,rw y", "take the files by COPY"),
        ("RUN --mount=type=bind,source=void,target=/x y", "shows no file"),
        ("RUN --mount=type=cache,target=$UNKNOWN y", "needs UNKNOWN, which only the image knows"),
        ("RUN --security=insecure x", "--security=insecure cannot be had"),
        ("RUN <<E\n#!python\nE", "must name a program by its whole path"),
        ("ADD https://host.example/x /x", "ADD of a URL cannot be had"),
        ("ADD --parents a.tar /x/", "--parents cannot be had for an archive"),
        ("COPY --from=other --parents /a /b/", "cannot be had with --from"),
        ("COPY missing /x", "missing is not in the context"),
        ("COPY ../up /x", "outside the context"),
        ("COPY hidden /x", "left out of the context"),
        ("FORM x", "did you mean FROM"),
    ],
)
def test_what_cannot_be_had_is_refused_with_its_line(project: Project, line: str, says: str) -> None:
    project.file("hidden").file(".dockerignore", "hidden\n")
    (project.top / "void").mkdir()
    with tarfile.open(project.top / "a.tar", "w") as archive:
        archive.add(project.top / "hidden", "hidden")

    said = project.refusal(f"FROM debian\n{line}\n")

    assert says in said
    assert f"{project.top}/Dockerfile, line 2: " in said


def test_much_to_send_is_said_with_its_biggest_folders(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_mount, "LARGE_BYTES", 10)
    project.file("data/weights/model", "x" * 20).file("src/a")

    with pytest.warns(
        UserWarning, match=r"Dockerfile, line 2 \(COPY \. /srv\) is .* data/weights \(0 MiB\), .*dockerignore"
    ):
        mounts(project.image("FROM debian\nCOPY . /srv\n"))


def test_misspelt_stage_is_no_image(project: Project) -> None:
    stages = "FROM debian AS build\nFROM debian\n"

    assert "line 3: there is no stage biuld; did you mean build?" in project.refusal(
        f"{stages}COPY --from=biuld /a /\n"
    )
    assert project.made(f"{stages}COPY --from=biuld:latest /a /\nCOPY --from=busybox /a /\n")


def test_other_platforms_are_refused(project: Project) -> None:
    assert "line 1: --platform=linux/arm64 cannot be had" in project.refusal("FROM --platform=linux/arm64 debian\n")
    assert project.made("FROM --platform=$BUILDPLATFORM debian\n")[0].tag == "debian"


def test_context_need_not_be_there_where_nothing_is_copied_from_it(project: Project) -> None:
    assert project.made("FROM debian\nRUN true\n", context_dir="/nowhere/at/all")
    said = project.refusal("FROM debian\nCOPY a /a\n", context_dir="/nowhere/at/all")
    assert "context_dir /nowhere/at/all: there is no such directory here" in said
