"""Image definitions keep their identity: the same steps give the same bytes."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest

from squall.protocol import image, image_steps
from squall.protocol.bucket import BucketMount
from squall.protocol.ids import is_id
from squall.protocol.image import ImageConfig, ImageInvalid, ImageSpec, ImageStep, StepMount
from squall.protocol.records import from_wire, to_wire
from squall.protocol.volume import VolumeMount


def make_spec(*steps: ImageStep) -> ImageSpec:
    return ImageSpec((image_steps.debian_slim("3.11"), *steps))


def test_every_step_survives_the_wire_in_both_decoders() -> None:
    spec = make_spec(
        image_steps.apt_install(("git",), env={"A": "b"}),
        image_steps.pip_install(("six==1.16",), index_url="file:///x", pre=True, extra_options="--no-deps"),
        image_steps.run_commands(("true", "echo 'a b'"), force_build=True),
        image_steps.env({"NAME": "värde"}),
        image_steps.workdir("/srv"),
        image_steps.copy("mo-0123456789", "/root", links={"a": "../b"}, directories=("empty",)),
        image_steps.run_commands(("make",), mount_id="mo-1", mounts=(StepMount("/cache"), StepMount("src", "src"))),
        image_steps.run_commands(("make",), volumes=(VolumeMount("vo-1", "/data", is_read_only=True),)),
        image_steps.run_commands(("make",), buckets=(BucketMount("bucket", "/data", secret_id="0"),)),
    )

    text = json.dumps(to_wire(spec)).encode()

    assert from_wire(ImageSpec, json.loads(text)) == spec
    assert msgspec.json.decode(text, type=ImageSpec) == spec
    image_steps.check(spec)


def test_old_bytes_still_decode_to_the_same_id() -> None:
    stored = (
        b'{"steps":[{"kind":"debian_slim","python_version":"3.11"},'
        b'{"kind":"pip_install","packages":["six"],"a_later_field":1}]}'
    )

    spec = from_wire(ImageSpec, json.loads(stored))

    assert image.image_id(spec) == "im-9cd8efb9a07533327b7c37c682f142fe"


def test_config_survives_the_wire() -> None:
    config = ImageConfig(env={"A": "b"}, workdir="/w", python_path="/usr/bin/python3", layers=("ly-1", "ly-2"))

    assert from_wire(ImageConfig, json.loads(json.dumps(to_wire(config)))) == config


def test_archive_is_known_by_its_content_whatever_its_file_is_called() -> None:
    one, other = image_steps.from_archive("mo-1", "app.tar"), image_steps.from_archive("mo-1", "copy of app.tar")
    changed = image_steps.from_archive("mo-2", "app.tar")

    image_steps.check(ImageSpec((one,)))
    assert image.image_id(ImageSpec((one,))) == image.image_id(ImageSpec((other,)))
    assert image.image_id(ImageSpec((one,))) != image.image_id(ImageSpec((changed,)))
    with pytest.raises(ImageInvalid, match="names no mount"):
        image_steps.check(ImageSpec((image_steps.from_archive("", "app.tar"),)))


def test_equal_beginnings_share_keys_and_a_change_moves_all_after_it() -> None:
    one = make_spec(image_steps.env({"A": "1"}), image_steps.run_commands(("true",)), image_steps.workdir("/a"))
    other = make_spec(image_steps.env({"A": "1"}), image_steps.run_commands(("false",)), image_steps.workdir("/a"))

    ours, theirs = image.step_keys(one), image.step_keys(other)

    assert ours[:2] == theirs[:2]
    assert ours[2] != theirs[2]
    assert ours[3] != theirs[3]
    assert is_id(image.image_id(one), "im")


def test_key_ignores_force_build_and_order_of_variables() -> None:
    step = image_steps.run_commands(("true",), env={"A": "1", "B": "2"})
    same = replace(step, env={"B": "2", "A": "1"}, force_build=True)

    assert image.cache_key("k", step) == image.cache_key("k", same)
    assert image.cache_key("k", step) != image.cache_key("l", step)


def test_what_is_mounted_of_a_volume_and_where_is_part_of_the_key() -> None:
    mount = VolumeMount("vo-1", "/data")
    mounts = [(), (mount,), *((replace(mount, **change),) for change in (
        {"volume_id": "vo-2"}, {"target": "/other"}, {"is_read_only": True}, {"sub_path": "a"}, {"version": 1},
    ))]  # fmt: skip
    keys = [image.cache_key("k", image_steps.run_commands(("true",), volumes=some)) for some in mounts]

    assert len(set(keys)) == len(keys)


def test_what_is_mounted_of_a_bucket_and_where_is_part_of_the_key_but_not_what_its_secret_is_called() -> None:
    mount = BucketMount("bucket", "/data", secret_id="0")
    mounts = [(), (mount,), *((replace(mount, **change),) for change in (
        {"bucket": "other"}, {"target": "/other"}, {"is_read_only": True}, {"key_prefix": "a/"}, {"endpoint_url": "http://x"},
    ))]  # fmt: skip
    keys = [image.cache_key("k", image_steps.run_commands(("true",), buckets=some)) for some in mounts]

    assert len(set(keys)) == len(keys)
    renamed = image_steps.run_commands(("true",), buckets=(replace(mount, secret_id="1"),))
    assert image.cache_key("k", renamed) == keys[1]


@pytest.mark.parametrize("package", ["jq", "g++", "libc6:i386", "jq=1.*", "jq=1.6-2.1+b1", "jq=2:1.0~rc1", "jq/stable"])
def test_packages_of_debian_may_say_which_version(package: str) -> None:
    image_steps.check(make_spec(image_steps.apt_install((package,))))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (ImageSpec(()), "begin with a base"),
        (ImageSpec((image_steps.workdir("/a"),)), "is a base"),
        (make_spec(image_steps.debian_slim("3.11")), "is a base"),
        (ImageSpec((image_steps.debian_slim("three"),)), "no Python version"),
        (make_spec(ImageStep("conjure")), "unknown kind"),
        (make_spec(image_steps.apt_install(("--purge",))), "no name of a Debian package"),
        (make_spec(image_steps.apt_install(())), "names no package"),
        (make_spec(image_steps.apt_install(("jq-",))), "no name of a Debian package"),
        (make_spec(image_steps.apt_install(("jq=1.*-",))), "no name of a Debian package"),
        (make_spec(image_steps.apt_install(("j*",))), "no name of a Debian package"),
        (make_spec(image_steps.apt_install(("jq/*",))), "no name of a Debian package"),
        (make_spec(image_steps.apt_install(("jq=1.*;id",))), "no name of a Debian package"),
        (make_spec(image_steps.apt_install(("jq=$(id)",))), "no name of a Debian package"),
        (make_spec(image_steps.apt_install(("jq=1 -o=x",))), "no name of a Debian package"),
        (make_spec(image_steps.apt_install(("-o=*",))), "no name of a Debian package"),
        (make_spec(image_steps.pip_install(("x",), extra_options="--a 'b")), "'b\": a quote in it is not closed"),
        (make_spec(image_steps.pip_install(("x",), extra_options="--a \\")), "ends in a backslash"),
        (make_spec(image_steps.pip_install(("--pre",))), "extra_options"),
        (make_spec(image_steps.run_commands(())), "no command"),
        (make_spec(image_steps.env({"A=B": "c"})), "name of a variable"),
        (make_spec(image_steps.env({"LINES\n": "c"})), "name of a variable"),
        (make_spec(image_steps.apt_install(("curl\n",))), "no name of a Debian package"),
        (ImageSpec((image_steps.debian_slim("3.11\n"),)), "no Python version"),
        (make_spec(image_steps.copy("mo-0123456789", "srv")), "no absolute path"),
        (make_spec(image_steps.run_commands(("a\0b",))), "zero byte"),
        (make_spec(image_steps.run_commands(("a",), mounts=(StepMount("/a\0b"),))), "zero byte"),
        (make_spec(image_steps.run_commands(("a",), mounts=(StepMount("/a", "b"),))), "'b' at '/a', which cannot be"),
        (make_spec(image_steps.run_commands(("a",), mount_id="mo-0", mounts=(StepMount("/a", "../b"),))), "cannot be"),
        (make_spec(image_steps.run_commands(("a",), mounts=(StepMount(""),))), "cannot be"),
        (make_spec(image_steps.run_commands(("a",), volumes=(VolumeMount("vo-1", "/tmp"),))), "cannot be mounted at"),
        (make_spec(image_steps.run_function("mo-0", "d", volumes=(VolumeMount("vo-1", "x"),))), "an absolute path"),
        (make_spec(replace(image_steps.workdir("/"), volumes=(VolumeMount("vo-1", "/x"),))), "functions only"),
        (make_spec(image_steps.run_commands(("a",), buckets=(BucketMount("x", "/x"),))), "no name of a bucket"),
        (make_spec(image_steps.run_function("mo-0", "d", buckets=(BucketMount("bucket", "/tmp"),))), "mounted at"),
        (
            make_spec(
                image_steps.run_commands(
                    ("a",), volumes=(VolumeMount("vo-1", "/x/y"),), buckets=(BucketMount("bucket", "/x"),)
                )
            ),
            "in the bucket at /x",
        ),
        (make_spec(replace(image_steps.workdir("/"), buckets=(BucketMount("bucket", "/x"),))), "functions only"),
        (make_spec(image_steps.copy("mo-0", "/", links={"../a": "b"})), "not below its target"),
        (make_spec(image_steps.copy("mo-0", "/", links={"a": ""})), "a link to nothing"),
        (make_spec(image_steps.copy("mo-0", "/", directories=("/a",))), "not below its target"),
        (make_spec(image_steps.copy("mo-0", "/", sources=("b",), directories=("a",))), "beside sources"),
        (make_spec(replace(image_steps.copy_from("im-0", ("b",), "/"), is_archive=True)), "beside sources"),
    ],
)
def test_impossible_definition_is_refused_naming_the_step(spec: ImageSpec, says: str) -> None:
    with pytest.raises(ImageInvalid, match=says):
        image_steps.check(spec)
