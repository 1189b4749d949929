"""Secrets: made, changed, given to containers, encrypted anew; and that nobody else has their values."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from squall.protocol.app import AppCreate, AppCreated
from squall.protocol.asset import SECRET, AssetDelete, AssetInfo, AssetList, AssetListing, AssetRename
from squall.protocol.call import SUCCEEDED, Failure, decode_failure
from squall.protocol.empty import Empty
from squall.protocol.environment import EnvironmentCreate, EnvironmentDelete, EnvironmentDeleted, EnvironmentInfo
from squall.protocol.errors import PlatformError
from squall.protocol.function import (
    FunctionBind,
    FunctionBound,
    FunctionCreate,
    FunctionCreated,
    FunctionGet,
    FunctionOptions,
    FunctionSpec,
)
from squall.protocol.ids import new_id
from squall.protocol.image import BuildEvent, ImageBuild, ImageSpec
from squall.protocol.image_steps import debian_slim
from squall.protocol.node import ContainerStart
from squall.protocol.secret import (
    BYTES_MAX,
    SecretCreate,
    SecretGet,
    SecretInfo,
    SecretKeyRotate,
    SecretKeyRotated,
    SecretList,
    SecretListing,
    SecretUpdate,
)
from squall.server.dispatch.asset.seal import Seal
from squall.server.store.aes_gcm import AesGcm
from squall.server.store.memory import MemoryStore
from squall.server.store.memory_secret_keys import MemorySecretKeys
from tests.server.dispatch.client.test_callers import container_of
from tests.server.doubles import FakeClient, Got, Stage, make_spec, settle, staged


def creation(name: str = "token", **fields: Any) -> SecretCreate:
    values = fields.pop("values", {"TOKEN": "one"})
    return SecretCreate(fields.pop("asset_id", new_id("st")), values, name, created_by="ann", **fields)


async def create(client: FakeClient, record: SecretCreate) -> SecretInfo:
    info: SecretInfo = await client.ask("SecretCreate", record, SecretInfo)
    return info


async def get(client: FakeClient, secret: str = "token", **fields: Any) -> SecretInfo:
    info: SecretInfo = await client.ask("SecretGet", SecretGet(secret, **fields), SecretInfo)
    return info


async def update(client: FakeClient, secret: str = "token", **values: str) -> SecretInfo:
    info: SecretInfo = await client.ask("SecretUpdate", SecretUpdate(secret, values), SecretInfo)
    return info


async def delete(client: FakeClient, secret: str = "token") -> None:
    await client.ask("AssetDelete", AssetDelete(SECRET, secret), Empty)


async def rotate(client: FakeClient) -> SecretKeyRotated:
    rotated: SecretKeyRotated = await client.ask("SecretKeyRotate", SecretKeyRotate(), SecretKeyRotated)
    return rotated


async def failure_of(awaitable: Any) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await awaitable
    return caught.value


async def turn_until(stage: Stage, is_so: Callable[[], object]) -> None:
    """Keys are read by threads: until that is done, the event loop turns, and little time passes."""
    async with asyncio.timeout(10):
        while not is_so():
            await stage.pass_time(0.001)


async def output(stage: Stage, function_id: str) -> Got:
    call = stage.client.call(function_id, 1)
    await turn_until(stage, lambda: call.outputs)
    return call.outputs[0]


async def why_failed(stage: Stage, function_id: str) -> Failure:
    failure, _ = decode_failure((await output(stage, function_id)).value)
    return failure


async def started(stage: Stage, function_id: str) -> ContainerStart:
    """The request for the container that a call makes."""
    count = len(stage.node.starts)
    assert (await output(stage, function_id)).status == SUCCEEDED
    assert len(stage.node.starts) == count + 1
    for guest in list(stage.node.guests.values()):
        guest.exit()
    await settle()
    return stage.node.starts[-1]


async def function_with(stage: Stage, *secret_ids: str, **fields: Any) -> FunctionSpec:
    return await stage.client.function(secrets=secret_ids, **fields)


# Making, finding, changing


async def test_a_secret_is_found_by_name_and_by_id_and_never_with_its_values() -> None:
    async with staged() as stage:
        made = await create(stage.client, creation())

        assert (made.name, made.environment, made.created_by, made.last_used_at) == ("token", "main", "ann", None)
        assert await get(stage.client) == await get(stage.client, made.asset_id) == made


async def test_making_one_again_is_harmless_with_the_same_id_and_an_error_with_another() -> None:
    async with staged() as stage:
        record = creation()
        made = await create(stage.client, record)

        assert await create(stage.client, record) == made
        refused = await failure_of(create(stage.client, creation(values={"TOKEN": "two"})))
        assert refused.code == "exists"
        assert "`squall secret create --force` replaces what is in it" in refused.message
        assert await create(stage.client, creation(values={"TOKEN": "two"}, may_exist=True)) == made
        spec = await function_with(stage, made.asset_id)
        assert (await started(stage, spec.function_id)).secrets == {"TOKEN": "one"}
        # Nothing is left of those that came to nothing.
        assert await stage.store.secrets.prune(1e12) == 0


async def test_replacing_one_leaves_nothing_of_what_was_in_it() -> None:
    async with staged() as stage:
        made = await create(stage.client, creation(values={"A": "1", "B": "2"}))
        spec = await function_with(stage, made.asset_id)
        before = await started(stage, spec.function_id)

        assert await create(stage.client, creation(values={"B": "3"}, is_replacing=True)) == await get(stage.client)

        after = await started(stage, spec.function_id)
        assert after.secrets == {"B": "3"}
        assert after.secrets_mark != before.secrets_mark


async def test_an_update_adds_and_changes_and_is_harmless_when_repeated() -> None:
    async with staged() as stage:
        made = await create(stage.client, creation(values={"A": "1", "B": "2"}))
        spec = await function_with(stage, made.asset_id)

        await update(stage.client, B="3", C="4")
        first = await started(stage, spec.function_id)
        await update(stage.client, B="3", C="4")
        second = await started(stage, spec.function_id)

        assert first.secrets == second.secrets == {"A": "1", "B": "3", "C": "4"}
        assert first.secrets_mark == second.secrets_mark


async def test_a_lacking_variable_is_told_with_those_there_are() -> None:
    async with staged() as stage:
        await create(stage.client, creation(values={"A": "1", "B": "2"}))

        assert (await get(stage.client, required_keys=("B", "A"))).name == "token"
        refused = await failure_of(get(stage.client, required_keys=("C", "A", "D")))
        assert refused.code == "invalid"
        assert refused.message == "SecretGet: secret token has no C, D; it has A, B"


async def test_a_missing_one_is_told_with_names_that_are_like_it() -> None:
    async with staged() as stage:
        await create(stage.client, creation("openai"))

        near = await failure_of(get(stage.client, "openal"))
        assert near.code == "not_found"
        assert "did you mean 'openai'?" in near.message


@pytest.mark.parametrize(
    "record",
    [
        creation(values={"": "x"}),
        creation(values={"A=B": "x"}),
        creation(values={"A": "x\0y"}),
        creation(values={"A": "x" * (BYTES_MAX + 1)}),
        creation(values={f"V{number}": "" for number in range(1001)}),
        creation("a b"),
        creation(""),
        creation(app_id="ap-1"),
        creation(asset_id="st-1"),
        creation(asset_id=new_id("di")),
    ],
)
async def test_what_is_wrong_is_refused_without_a_value(record: SecretCreate) -> None:
    async with staged() as stage:
        refused = await failure_of(create(stage.client, record))

        assert refused.code == "invalid"
        assert "xxxxxxxxxx" not in refused.message
        assert len(refused.message) < 300


async def test_named_ones_are_listed_newest_first_with_when_they_were_used() -> None:
    async with staged() as stage:
        first = await create(stage.client, creation("first"))
        stage.clock.advance(1.0)
        await create(stage.client, creation("second"))
        app_id = await stage.client.app()
        await create(stage.client, creation("", app_id=app_id))
        spec = await function_with(stage, first.asset_id)
        await started(stage, spec.function_id)

        listing = await stage.client.ask("SecretList", SecretList(), SecretListing)
        assert [one.name for one in listing.secrets] == ["second", "first"]
        assert [one.last_used_at is not None for one in listing.secrets] == [False, True]
        # And not only while this server remembers.
        await stage.pass_time(11)
        await stage.restart()
        await stage.client.connect()
        assert (await get(stage.client, "first")).last_used_at == listing.secrets[1].last_used_at


# Those of apps


async def test_the_same_values_in_one_app_are_one_secret() -> None:
    async with staged() as stage:
        app_id, other_id = await stage.client.app(), await stage.client.app()

        first = await create(stage.client, creation("", app_id=app_id, values={"A": "1", "B": "2"}))
        again = await create(stage.client, creation("", app_id=app_id, values={"B": "2", "A": "1"}))
        changed = await create(stage.client, creation("", app_id=app_id, values={"A": "1", "B": "3"}))
        of_other = await create(stage.client, creation("", app_id=other_id, values={"A": "1", "B": "2"}))

        assert first.asset_id == again.asset_id
        assert len({first.asset_id, changed.asset_id, of_other.asset_id}) == 3
        await rotate(stage.client)
        after = await create(stage.client, creation("", app_id=app_id, values={"A": "1", "B": "2"}))
        assert after.asset_id == first.asset_id


async def test_a_function_names_secrets_that_there_are() -> None:
    async with staged() as stage:
        other = await create(stage.client, creation("", app_id=await stage.client.app()))
        spec = make_spec(await stage.client.app())
        own = await create(stage.client, creation("", app_id=spec.app_id))
        named = await create(stage.client, creation())

        for secret_ids, code in (
            ((new_id("st"),), "not_found"),
            (("st-1",), "invalid"),
            ((own.asset_id,) * 101, "invalid"),
        ):
            functions = FunctionCreate((make_spec(spec.app_id, secrets=secret_ids),))
            assert (await failure_of(stage.client.ask("FunctionCreate", functions, FunctionCreated))).code == code
        # Another app's own as well: whoever asks from outside may run a call of that app again.
        functions = FunctionCreate((make_spec(spec.app_id, secrets=(own.asset_id, named.asset_id, other.asset_id)),))
        await stage.client.ask("FunctionCreate", functions, FunctionCreated)
        bind = FunctionBind(spec.function_id, options=FunctionOptions(secrets=(new_id("st"),)))
        assert (await failure_of(stage.client.ask("FunctionBind", bind, FunctionBound))).code == "not_found"


async def test_what_is_there_can_be_made_again_when_its_secret_is_gone() -> None:
    async with staged() as stage:
        made = await create(stage.client, creation())
        spec = await function_with(stage, made.asset_id)
        await delete(stage.client)

        # As a client does when it has connected again.
        created = await stage.client.ask("FunctionCreate", FunctionCreate((spec,)), FunctionCreated)

        assert created.function_ids == (spec.function_id,)


# Giving them to containers


async def test_of_what_several_have_the_last_one_counts() -> None:
    async with staged() as stage:
        first = await create(stage.client, creation("first", values={"A": "1", "B": "1"}))
        second = await create(stage.client, creation("second", values={"B": "2", "C": "2"}))

        spec = await function_with(stage, first.asset_id, second.asset_id)
        assert (await started(stage, spec.function_id)).secrets == {"A": "1", "B": "2", "C": "2"}
        other = await function_with(stage, second.asset_id, first.asset_id)
        assert (await started(stage, other.function_id)).secrets == {"A": "1", "B": "1", "C": "2"}


async def test_a_variant_has_its_own_in_place_of_those_of_its_function() -> None:
    async with staged() as stage:
        first = await create(stage.client, creation("first", values={"A": "1"}))
        second = await create(stage.client, creation("second", values={"B": "2"}))
        spec = await function_with(stage, first.asset_id)

        bind = FunctionBind(spec.function_id, options=FunctionOptions(secrets=(second.asset_id,)))
        bound = await stage.client.ask("FunctionBind", bind, FunctionBound)

        assert (await started(stage, bound.function_id)).secrets == {"B": "2"}
        shown = await stage.client.ask("FunctionGet", FunctionGet(bound.function_id), FunctionSpec)
        assert shown.name == "square[secrets]"


async def test_a_function_without_any_is_given_nothing() -> None:
    async with staged() as stage:
        spec = await stage.client.function()

        start = await started(stage, spec.function_id)
        assert (start.secrets, start.secrets_mark) == ({}, "")


async def test_containers_that_run_keep_what_they_have_and_new_ones_get_what_is_new() -> None:
    async with staged() as stage:
        made = await create(stage.client, creation())
        spec = await function_with(stage, made.asset_id)
        first = await started(stage, spec.function_id)
        await update(stage.client, TOKEN="two")

        second = await started(stage, spec.function_id)

        assert [first.secrets, second.secrets] == [{"TOKEN": "one"}, {"TOKEN": "two"}]


class Slow:
    """A store whose next answer is held up on its way."""

    def __init__(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_read, self.may_go_on = asyncio.Event(), asyncio.Event()
        real = stage.store.secrets.get

        async def get(secret_ids: frozenset[str]) -> Any:
            found = await real(secret_ids)
            monkeypatch.setattr(stage.store.secrets, "get", real)
            self.has_read.set()
            await self.may_go_on.wait()
            return found

        monkeypatch.setattr(stage.store.secrets, "get", get)


async def test_what_is_changed_while_a_container_starts_is_what_the_next_one_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with staged() as stage:
        made = await create(stage.client, creation())
        spec = await function_with(stage, made.asset_id)
        stage.plane.secrets._known.clear()
        slow = Slow(stage, monkeypatch)
        early = asyncio.ensure_future(started(stage, spec.function_id))
        await slow.has_read.wait()

        await update(stage.client, TOKEN="two")
        slow.may_go_on.set()

        assert (await early).secrets == {"TOKEN": "one"}
        assert (await started(stage, spec.function_id)).secrets == {"TOKEN": "two"}


async def test_a_container_that_starts_while_the_key_is_changed_is_given_what_is_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with staged() as stage:
        made = await create(stage.client, creation())
        spec = await function_with(stage, made.asset_id)
        stage.plane.secrets._known.clear()
        slow = Slow(stage, monkeypatch)
        early = asyncio.ensure_future(output(stage, spec.function_id))
        await slow.has_read.wait()

        assert await rotate(stage.client) == SecretKeyRotated(1)
        slow.may_go_on.set()

        assert (await early).status == SUCCEEDED
        assert stage.node.starts[-1].secrets == {"TOKEN": "one"}


async def test_a_start_that_names_a_deleted_one_fails_in_words() -> None:
    async with staged() as stage:
        made = await create(stage.client, creation())
        spec = await function_with(stage, made.asset_id)
        await started(stage, spec.function_id)
        await delete(stage.client)

        failure = await why_failed(stage, spec.function_id)

        assert failure.kind == "invalid"
        assert failure.message.startswith(f"function square cannot be started: there is no secret {made.asset_id}")
        assert len(stage.node.starts) == 1
        # One of the same name is another one.
        await create(stage.client, creation())
        assert (await why_failed(stage, spec.function_id)).kind == "invalid"


async def test_a_start_that_names_one_of_an_environment_that_was_deleted_fails() -> None:
    async with staged() as stage:
        await stage.client.ask("EnvironmentCreate", EnvironmentCreate("dev"), EnvironmentInfo)
        made = await create(stage.client, creation(environment="dev"))
        spec = await function_with(stage, made.asset_id)
        await started(stage, spec.function_id)
        # It may have forgotten that it knows the asset.
        stage.plane.assets._known.clear()

        await stage.client.ask("EnvironmentDelete", EnvironmentDelete("dev"), EnvironmentDeleted)

        assert (await why_failed(stage, spec.function_id)).kind == "invalid"


async def test_a_start_without_the_right_key_fails_in_words_and_the_rest_goes_on() -> None:
    async with staged() as stage:
        made = await create(stage.client, creation())
        spec = await function_with(stage, made.asset_id)
        stage.secret_keys = MemorySecretKeys()
        await stage.restart()
        await stage.client.connect()

        missing = await why_failed(stage, spec.function_id)
        assert "the key of secrets is missing" in missing.message
        await create(stage.client, creation("other"))
        wrong = await why_failed(stage, spec.function_id)
        assert "was encrypted with a key" in wrong.message
        assert "SQUALL_SECRET_KEY" in wrong.message
        assert (await failure_of(update(stage.client, TOKEN="two"))).code == "conflict"
        # Replacing needs to read nothing.
        await create(stage.client, creation(values={"TOKEN": "new"}, is_replacing=True))
        assert (await started(stage, spec.function_id)).secrets == {"TOKEN": "new"}


async def test_too_much_for_a_container_is_refused_in_words() -> None:
    async with staged() as stage:
        names = [f"big-{number}" for number in range(9)]
        made = [await create(stage.client, creation(name, values={name: "x" * (BYTES_MAX - 100)})) for name in names]
        spec = await function_with(stage, *(one.asset_id for one in made))

        failure = await why_failed(stage, spec.function_id)

        assert failure.kind == "invalid"
        assert "its secrets have" in failure.message


async def built(client: FakeClient, **named: str) -> None:
    assert client.peer is not None
    spec = ImageSpec((debian_slim("3.11"),))
    async for _ in client.peer.stream("ImageBuild", ImageBuild(spec, named_secrets=named)).items(BuildEvent):
        pass


async def test_a_node_that_builds_is_told_what_is_in_the_secrets_that_are_named() -> None:
    async with staged() as stage:
        made = await create(stage.client, creation())

        await built(stage.client, **{"0": made.asset_id})

        (record,) = stage.node.build_records
        assert (record.secrets, record.named_secrets) == ({"0": {"TOKEN": "one"}}, {})
        assert (await get(stage.client)).last_used_at is not None
        await delete(stage.client)
        assert (await failure_of(built(stage.client, **{"0": made.asset_id}))).code == "not_found"
        assert len(stage.node.build_records) == 1


async def test_a_build_in_a_container_names_secrets_of_its_environment_only() -> None:
    async with staged() as stage:
        await stage.client.ask("EnvironmentCreate", EnvironmentCreate("dev"), EnvironmentInfo)
        hidden = await create(stage.client, creation(environment="dev"))
        client = await container_of(stage, await stage.client.function(min_containers=1))

        assert (await failure_of(built(client, **{"0": hidden.asset_id}))).code == "forbidden"
        assert not stage.node.build_records


# In containers


async def test_a_container_passes_secrets_on_and_makes_those_of_its_own_apps_only() -> None:
    async with staged() as stage:
        made = await create(stage.client, creation())
        await stage.client.ask("EnvironmentCreate", EnvironmentCreate("dev"), EnvironmentInfo)
        hidden = await create(stage.client, creation(environment="dev"))
        outside_id = await stage.client.app()
        of_outside = await create(stage.client, creation("", app_id=outside_id))
        parent = await stage.client.function(min_containers=1)
        client = await container_of(stage, parent)

        assert (await get(client)).asset_id == made.asset_id
        child_id = new_id("ap")
        await client.ask("AppCreate", AppCreate(child_id), AppCreated)
        own = await create(client, creation("", app_id=child_id))
        await create(client, creation("", app_id=parent.app_id))
        functions = FunctionCreate((make_spec(child_id, secrets=(made.asset_id, own.asset_id)),))
        await client.ask("FunctionCreate", functions, FunctionCreated)
        for attempt in (
            create(client, creation("other")),
            create(client, creation("", app_id=outside_id)),
            update(client, TOKEN="two"),
            client.ask("SecretList", SecretList(), SecretListing),
            client.ask("AssetList", AssetList(SECRET), AssetListing),
            client.ask("AssetDelete", AssetDelete(SECRET, "token"), Empty),
            client.ask("AssetRename", AssetRename(SECRET, "token", "mine"), AssetInfo),
            rotate(client),
            get(client, hidden.asset_id),
            get(client, environment="dev"),
        ):
            assert (await failure_of(attempt)).code == "forbidden"
        for secret_id, code in ((hidden.asset_id, "forbidden"), (of_outside.asset_id, "forbidden")):
            functions = FunctionCreate((make_spec(child_id, "other", secrets=(secret_id,)),))
            assert (await failure_of(client.ask("FunctionCreate", functions, FunctionCreated))).code == code


# Encrypting them anew


class Crashed(Exception):
    """The server was ended here."""


class CrashingKeys(MemorySecretKeys):
    """Ends the server before or after it is asked so often."""

    def __init__(self, keys: tuple[bytes, ...], count: int, *, is_after: bool) -> None:
        super().__init__()
        self.keys = keys
        self.left = count
        self.is_after = is_after

    def _step(self) -> None:
        self.left -= 1
        if not self.left:
            raise PlatformError("unavailable", "ended")

    def begin_rotation(self) -> tuple[bytes, ...]:
        if not self.is_after:
            self._step()
        found = super().begin_rotation()
        if self.is_after:
            self._step()
        return found

    def end_rotation(self) -> tuple[bytes, ...]:
        if not self.is_after:
            self._step()
        found = super().end_rotation()
        if self.is_after:
            self._step()
        return found


async def make_many(stage: Stage, count: int = 5) -> FunctionSpec:
    made = [
        await create(stage.client, creation(f"token-{number}", values={f"T{number}": str(number)}))
        for number in range(count)
    ]
    return await function_with(stage, *(one.asset_id for one in made))


VALUES = {f"T{number}": str(number) for number in range(5)}


async def test_after_a_rotation_all_is_encrypted_with_a_new_key_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squall.server.dispatch.asset.secrets.ROTATED_AT_ONCE", 2)
    async with staged() as stage:
        spec = await make_many(stage)
        before = await started(stage, spec.function_id)
        (old,) = stage.secret_keys.read()

        assert await rotate(stage.client) == SecretKeyRotated(5)

        (new,) = stage.secret_keys.read()
        assert new != old
        after = await started(stage, spec.function_id)
        assert after.secrets == before.secrets == VALUES
        # Templates are as good as before.
        assert after.secrets_mark == before.secrets_mark
        assert len(await stage.store.secrets.sealed_otherwise(Seal((new,), AesGcm).key_id, "", 10)) == 0


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("step", [1, 2])
async def test_a_rotation_that_is_cut_off_at_its_keys_leaves_all_readable(step: int, is_after: bool) -> None:
    async with staged() as stage:
        spec = await make_many(stage)
        stage.secret_keys = CrashingKeys(stage.secret_keys.read(), step, is_after=is_after)
        await stage.restart()
        await stage.client.connect()
        await failure_of(rotate(stage.client))

        await stage.restart()
        await stage.client.connect()

        assert (await started(stage, spec.function_id)).secrets == VALUES
        await turn_until(stage, lambda: len(stage.secret_keys.read()) == 1)


@pytest.mark.parametrize("written", range(6))
async def test_a_rotation_that_is_cut_off_between_rows_is_gone_on_with(
    written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squall.server.dispatch.asset.secrets.ROTATED_AT_ONCE", 2)
    store = MemoryStore()
    real, left = store.secrets.replace, written

    async def replace(nonce: bytes, secret: Any) -> bool:
        nonlocal left
        if not left:
            raise PlatformError("unavailable", "ended")
        left -= 1
        return await real(nonce, secret)

    async with staged(store=store) as stage:
        spec = await make_many(stage)
        monkeypatch.setattr(store.secrets, "replace", replace)
        if written < 5:
            assert (await failure_of(rotate(stage.client))).code == "unavailable"
            assert len(stage.secret_keys.read()) == 2
        assert (await started(stage, spec.function_id)).secrets == VALUES
        monkeypatch.setattr(store.secrets, "replace", real)

        # What comes to it meanwhile has the new key.
        await create(stage.client, creation("late"))
        await stage.restart()
        await stage.client.connect()

        assert (await started(stage, spec.function_id)).secrets == VALUES
        await turn_until(stage, lambda: len(stage.secret_keys.read()) == 1)


async def test_a_rotation_goes_on_when_who_asked_for_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        await make_many(stage)
        real, has_begun, may_go_on = stage.store.secrets.replace, asyncio.Event(), asyncio.Event()

        async def replace(nonce: bytes, secret: Any) -> bool:
            has_begun.set()
            await may_go_on.wait()
            return await real(nonce, secret)

        monkeypatch.setattr(stage.store.secrets, "replace", replace)
        asked = asyncio.ensure_future(failure_of(rotate(stage.client)))
        await has_begun.wait()
        stage.client.disconnect()
        await asked
        await settle()
        may_go_on.set()

        await turn_until(stage, lambda: len(stage.secret_keys.read()) == 1)


async def test_what_no_key_opens_is_counted_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        await create(stage.client, creation("lost"))
        stage.secret_keys = MemorySecretKeys()
        await stage.restart()
        await stage.client.connect()
        await create(stage.client, creation("known"))

        assert await rotate(stage.client) == SecretKeyRotated(1, 1)


async def test_given_keys_are_the_owners_to_change() -> None:
    class Given(MemorySecretKeys):
        is_given = True

        def begin_rotation(self) -> tuple[bytes, ...]:
            return self.keys

        def end_rotation(self) -> tuple[bytes, ...]:
            return self.keys

    async with staged() as stage:
        spec = await make_many(stage)
        old, given = stage.secret_keys.read()[0], Given()
        given.keys = (secrets.token_bytes(32), old)
        stage.secret_keys = given
        await stage.restart()
        await stage.client.connect()

        assert (await started(stage, spec.function_id)).secrets == VALUES
        assert await rotate(stage.client) == SecretKeyRotated(5, 0, is_key_given=True)
        given.keys = given.keys[:1]
        await stage.restart()
        await stage.client.connect()
        assert (await started(stage, spec.function_id)).secrets == VALUES
