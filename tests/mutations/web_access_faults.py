"""Mutations of what proxy tokens open, of what is kept of them, and of where the server listens."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

TOKENS = "tests/server/dispatch/web/test_proxy_tokens.py::"
SERVER = "src/squall/server/dispatch/web/proxy_tokens.py"
VALUES = "tests/conformance/test_store_values.py::"
TCP = "tests/main/test_tcp.py::"
INGRESS = "tests/server/ingress/test_ingress.py::"
HEADERS = "src/squall/server/ingress/headers.py"
CLIENT = "tests/sdk/test_workspace.py::"

WEB_ACCESS_FAULTS = (
    Mutation(
        "token-secret",
        "a proxy token opens with its secret only",
        "the id is enough",
        (Change(SERVER, "if token is None or not is_it:", "if token is None:"),),
        {f"{TOKENS}test_a_token_opens_every_environment_and_only_with_its_secret": "assert not opens(key, secret"},
    ),
    Mutation(
        "token-ascii",
        "a proxy token opens with its secret only",
        "a secret that is no ASCII is an error of the server",
        (Change(SERVER, 'secret.encode("utf-8", "surrogatepass")', 'secret.encode("ascii")'),),
        {f"{INGRESS}test_a_proxy_token_is_given_once[no ascii]": "assert head.startswith"},
    ),
    Mutation(
        "token-twice",
        "a proxy token comes once",
        "the last of several headers counts",
        (
            Change(
                HEADERS,
                "found = sorted((name, value) for name, value in scope",
                "found = sorted({name: value for name, value in scope",
            ),
            Change(HEADERS, "if name in OURS)\n", "if name in OURS}.items())\n"),
        ),
        {f"{INGRESS}test_a_proxy_token_is_given_once[twice]": "assert head.startswith"},
    ),
    Mutation(
        "token-mixed",
        "a proxy token comes once",
        "an id and a secret of different names are a pair",
        (Change(HEADERS, "if tuple(name for name, _ in found) not in TOKENS:", "if len(found) != 2:"),),
        {f"{INGRESS}test_a_proxy_token_is_given_once[mixed]": "assert head.startswith"},
    ),
    Mutation(
        "token-passed-on",
        "applications see no tokens",
        "the short way passes them on",
        (Change("src/squall/server/ingress/lane.py", "*HOP, *OURS}", "*HOP}"),),
        {f"{INGRESS}test_a_proxy_token_is_taken_away_also_where_none_is_asked_for": 'assert b"wk-1" not in raw'},
    ),
    Mutation(
        "token-again",
        "one that is sent again is the same",
        "another hash is taken for the same",
        (Change(SERVER, "elif not hmac.compare_digest(known.secret_sha256, sha256):", "elif not known:"),),
        {f"{TOKENS}test_a_request_that_is_sent_again_makes_the_same_token": 'ProxyTokenCreate", other)) =='},
    ),
    Mutation(
        "token-scope",
        "a proxy token opens what it is allowed",
        "it opens every environment",
        (
            Change(
                SERVER, "if token.environment_ids is not None and self._environments", "if False and self._environments"
            ),
        ),
        {f"{TOKENS}test_a_token_that_is_allowed_an_environment_opens_no_other": "assert not opens(token_id, SECRET"},
    ),
    Mutation(
        "token-last-environment",
        "a proxy token opens what it is allowed",
        "one that is allowed nothing opens everything",
        (
            Change(
                SERVER,
                "if token.environment_ids is not None and self._environments",
                "if token.environment_ids and self._environments",
            ),
        ),
        {f"{TOKENS}test_a_token_that_is_allowed_an_environment_opens_no_other": "assert not opens(token_id, SECRET"},
    ),
    Mutation(
        "token-environment-name",
        "a proxy token opens what it is allowed",
        "an environment made anew is opened",
        (
            Change(
                "src/squall/server/dispatch/app/environments.py",
                "return _environment_id(self._created_at.get(environment, 0.0), shown(environment))",
                "return _environment_id(0.0, shown(environment))",
            ),
        ),
        {f"{TOKENS}test_an_environment_made_anew_is_another": "assert not stage.plane.web.opens(token_id"},
    ),
    Mutation(
        "token-deleted",
        "what is taken away is away",
        "a deleted token opens until the server starts anew",
        (Change(SERVER, "            del self._tokens[token.token_id]\n", ""),),
        {f"{TOKENS}test_a_deleted_token_opens_nothing": "assert not stage.plane.web.opens(token_id"},
    ),
    Mutation(
        "token-kept",
        "what is taken away is away",
        "a deleted token is there again when the server starts anew",
        (Change(SERVER, "            await self._store.delete(token.token_id)\n", ""),),
        {f"{TOKENS}test_a_deleted_token_opens_nothing": "assert not stage.plane.web.opens(token_id"},
    ),
    Mutation(
        "token-loaded",
        "tokens outlive the server",
        "they are not read when it starts",
        (Change("src/squall/server/dispatch/control_plane.py", "        await self.proxy_tokens.load()\n", ""),),
        {f"{TOKENS}test_tokens_are_there_after_a_restart_with_all_that_is_known_of_them": "== before"},
    ),
    Mutation(
        "token-in-clear",
        "the server is told a hash",
        "it keeps the secret",
        (
            Change(
                "src/squall/sdk/workspace.py",
                "sha256_hex(made.token_secret.encode())",
                "made.token_secret.encode().hex().ljust(64, chr(48))[:64]",
            ),
        ),
        {f"{CLIENT}test_the_server_is_told_a_hash": "kept.secret_sha256 == hashlib.sha256"},
    ),
    Mutation(
        "token-from-container",
        "containers do not make tokens",
        "they do",
        (
            Change(
                "src/squall/server/dispatch/client/callers.py",
                '"SecretGet", "SecretCreate",',
                '"SecretGet", "SecretCreate", "ProxyTokenCreate",',
            ),
        ),
        {
            "tests/server/dispatch/client/test_callers.py::test_tokens_are_neither_made_nor_seen_inside": (
                '== "forbidden", method'
            )
        },
    ),
    Mutation(
        "exposed",
        "beyond loopback only with TLS",
        "the server listens anywhere",
        (Change("src/squall/main/tcp.py", "if not config.http_insecure:", "if False:"),),
        {f"{TCP}test_beyond_loopback_needs_tls[0.0.0.0]": "pytest.raises(ConfigError"},
    ),
    Mutation(
        "tls-late",
        "beyond loopback only with TLS",
        "a certificate that cannot be used is found when somebody connects",
        (Change("src/squall/main/tcp.py", "        _check_tls(config.tls_cert, config.tls_key)\n", "        pass\n"),),
        {f"{TCP}test_tls_that_cannot_be_had_is_told_at_the_start": "pytest.raises(ConfigError, match=said)"},
    ),
    Mutation(
        "browser-headers",
        "browsers are told what responses of the API are for",
        "nothing is told",
        (
            Change(
                "src/squall/server/api/http.py",
                "return ResponseHeaders(Guard(Starlette(routes=routes), token, host_names))",
                "return Guard(Starlette(routes=routes), token, host_names)",
            ),
        ),
        {"tests/server/api/test_response_headers.py::test_every_response_of_the_api_has_them": "== WANTED"},
    ),
    Mutation(
        "browser-tls",
        "browsers are told what responses of the API are for",
        "they are told to stay with TLS where there is none",
        (Change("src/squall/server/api/response_headers.py", 'in ("https", "wss") else ALWAYS', '!= "x" else ALWAYS'),),
        {"tests/server/api/test_response_headers.py::test_every_response_of_the_api_has_them": "== WANTED"},
    ),
    Mutation(
        "body-base64",
        "requests that are none are refused",
        "a body that is no ASCII is an error of the server",
        (Change("src/squall/server/api/http.py", "except (ValueError, RecursionError)", "except msgspec.DecodeError"),),
        {"tests/server/api/test_http.py::test_bodies_that_are_no_base64_are_refused[no ascii]": '== (400, "invalid")'},
    ),
    Mutation(
        "number-kept",
        "requests that are none are refused",
        "a number that no database keeps is told as a database that is away",
        (
            Change(
                "src/squall/server/store/database.py",
                'raise PlatformError(INVALID, f"a value is none that the database can keep: {error}")',
                'raise PlatformError(UNAVAILABLE, f"a value is none that the database can keep: {error}")',
            ),
        ),
        {f"{VALUES}test_a_number_that_is_too_large_is_refused[sqlite-above]": "assert refused.value.code == INVALID"},
    ),
)
