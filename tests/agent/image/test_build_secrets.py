"""Secrets of builds, on the fake runtime: who gets them, where they are hidden, and whom a wrong one concerns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from squall.agent.image.making import BuildFailed
from squall.agent.image.progress import BuiltImage
from squall.protocol import image, image_steps
from squall.protocol.image import BuildEvent
from squall.runtime.spec import ContainerSpec
from tests.agent.image.shop import RUN, Shop, make_spec, open_shop
from tests.agent.parts import until


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(tmp_path) as opened:
        yield opened


async def test_secrets_are_in_the_environment_of_their_step_alone_and_in_no_line(shop: Shop) -> None:
    shop.says = "the token is s3cret-value\n"
    events: list[BuildEvent] = []
    steps = (image_steps.run_commands(("one",), secrets=("0",)), image_steps.run_commands(("two",)))

    await shop.build(*steps, events=events, secrets={"0": {"TOKEN": "s3cret-value"}})

    assert [spec.env.get("TOKEN") for spec in shop.specs] == ["s3cret-value", None]
    lines = [event.text for event in events if event.kind == "line"]
    assert "the token is ***" in lines
    kept = b"".join(path.read_bytes() for path in shop.data_dir.rglob("*") if path.is_file())
    assert b"s3cret-value" not in kept
    assert image.image_id(make_spec(*steps)) == image.image_id(
        make_spec(image_steps.run_commands(("one",)), image_steps.run_commands(("two",)))
    )


async def test_a_secret_of_many_lines_is_hidden_in_each_of_them(shop: Shop) -> None:
    shop.says = "-- key --\nc2VjcmV0\nbW9yZQ==\nc2VjcmV0-and-more\n"
    events: list[BuildEvent] = []
    key = "-- key --\nc2VjcmV0\nbW9yZQ==\n"

    await shop.build(
        image_steps.run_commands(("one",), secrets=("0",)),
        events=events,
        secrets={"0": {"KEY": key, "LONGER": "c2VjcmV0-and-more"}},
    )

    assert [event.text for event in events if event.kind == "line"][-4:] == ["***"] * 4


async def test_secret_that_an_earlier_step_was_given_is_in_no_line_and_no_error_of_another(shop: Shop) -> None:
    async def fail(spec: ContainerSpec) -> int:
        return len(shop.specs) - 1

    shop.says, shop.step = "s3cret-value" + "x" * 3_980 + "s3cret-value\nbob:pw@h\n", fail
    events: list[BuildEvent] = []
    steps = (image_steps.run_commands(("one",), secrets=("0",)), image_steps.run_commands(("two",)))

    with pytest.raises(BuildFailed, match="exit status 1") as failed:
        await shop.build(*steps, events=events, secrets={"0": {"TOKEN": "s3cret-value", "INDEX": "https://bob:pw@h/"}})

    said = [failed.value.message, *(event.text for event in events)]
    logs = [path.read_text() for path in (shop.data_dir / "image-logs").iterdir()]
    assert len(events) > 4
    for text in (*said, *logs):
        assert "s3cret" not in text
        assert ":pw" not in text


async def test_fetch_knows_no_secret(shop: Shop) -> None:
    step = image_steps.pip_install(("six",), secrets=("0",))

    await shop.build(step, secrets={"0": {"TOKEN": "s3cret-value"}})
    await shop.build(RUN, step, secrets={"0": {"UV_EXTRA_INDEX_URL": "https://user:password@mine"}})

    fetch, install, _, alone = shop.specs
    assert "TOKEN" not in fetch.env
    assert install.env["TOKEN"] == "s3cret-value"
    assert "--no-build" not in alone.argv[2], "what the secret leads to is not everybody's"


async def test_build_with_other_secrets_is_not_joined_and_does_not_fail_with_the_other(shop: Shop) -> None:
    gate = asyncio.Event()

    async def need_token(spec: ContainerSpec) -> int:
        await gate.wait()
        return await shop.write_a_file(spec) if spec.env["TOKEN"] == "right" else 1

    shop.step = need_token
    step = image_steps.run_commands(("one",), secrets=("0",))

    def begin(token: str) -> asyncio.Future[BuiltImage]:
        return asyncio.ensure_future(shop.build(step, secrets={"0": {"TOKEN": token}}))

    builds = [begin("wrong")]
    await until(lambda: len(shop.specs) == 1)
    builds += [begin("right"), begin("wrong"), begin("right")]
    # A build is joined as it is asked for, which takes a turn or two of the loop.
    for _ in range(10):
        await asyncio.sleep(0)
    gate.set()

    built = await asyncio.gather(*builds, return_exceptions=True)

    assert [isinstance(one, BuildFailed) for one in built] == [True, False, True, False]
    assert [spec.env["TOKEN"] for spec in shop.specs] == ["wrong", "right"]
    assert built[1] == built[3]
