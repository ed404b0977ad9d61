"""Who may use a server: callers with its key, pages of the origins that it names."""

from pathlib import Path

import pytest
from served_runs import asked, send, served


def test_a_key_is_wanted_where_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_KEY", "right")
    with served(tmp_path, options={"api_key_env": "SERVER_KEY"}) as server:
        for sent in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer ключ".encode()},
            {"Authorization": "right"},
            {"Authorization": b"Bearer \xff"},
            {"Authorization": b"\xff right"},
            {"Authorization": b"Bearer right\xff"},
        ):
            for path in ("/v1/chat/completions", "/feedback"):
                reply = send(server, asked(), path, **sent)  # type: ignore[arg-type]
                assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
        assert server.http.get(server.root + "/metrics").status_code == 401
        assert server.http.get(server.root + "/health").status_code == 200
        assert send(server, asked(), Authorization="Bearer right").status_code == 200
    monkeypatch.delenv("SERVER_KEY")


def test_a_page_of_another_site_cannot_use_a_server_without_a_key(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        for headers in (
            *({"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}, {"Host": "[::"}),
            *({"Host": "host.docker.internal.evil.example"}, {"Host": "wiki.internal"}, {"Host": "localhost.evil.example"}),
            *(
                {"Origin": "http://host.docker.internal"},
                {"Host": "host.docker.internal:8080", "Origin": "http://wiki.internal"},
            ),
        ):
            reply = send(server, asked(), **headers)
            assert (reply.status_code, reply.json()["error"]["code"]) == (403, "forbidden_origin"), headers
            assert ("--api-key-env" in reply.text) == ("Origin" not in headers), "what helps"
        own = ({"Origin": "http://localhost:3000"}, {"Host": "student.localhost:8080"}, {"Origin": "http://app.localhost"})
        from_containers = ({"Host": "host.docker.internal:8080"}, {"Host": "host.containers.internal"})
        for headers in (*own, *from_containers):
            assert send(server, asked(), **headers).status_code == 200, headers
        assert len(server.student.requests) == len(own) + len(from_containers)


PAGES: list[tuple[str, bool]] = [  # where a page is from, and whether it may use the server
    ("https://app.example.org", True),
    ("http://localhost:3000", True),
    ("https://evil.example", False),
    ("https://app.example.org.evil.example", False),
    ("http://app.example.org", False),
    ("null", False),
]


@pytest.mark.parametrize("key", [None, "right"])
@pytest.mark.parametrize("stream", [False, True])
def test_pages_of_the_named_origins_and_no_others_can_use_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, stream: bool
) -> None:
    monkeypatch.setenv("SERVER_KEY", "right")
    options = {"cors_origin": [origin for origin, may in PAGES if may], "api_key_env": key and "SERVER_KEY"}
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}
    with served(tmp_path, options=options) as server:
        for origin, may in PAGES:
            path = server.root + "/v1/chat/completions"
            before = server.http.request("OPTIONS", path, headers={"Origin": origin, **asks})
            assert (before.status_code == 204) == may and before.headers.get("vary") == "Origin"
            assert before.headers.get("access-control-allow-headers") == (
                asks["Access-Control-Request-Headers"] if may else None
            )
            without = send(server, asked(stream=stream), Origin=origin)
            assert without.status_code == (401 if key else 200 if may else 403), "a preflight is no key"
            reply = send(server, asked(stream=stream), Origin=origin, **({"Authorization": f"Bearer {key}"} if key else {}))
            for one in (before, without, reply):
                assert one.headers.get("access-control-allow-origin") == (origin if may else None)
            assert not may or "x-seqdistill-model" in reply.headers["access-control-expose-headers"]
        assert send(server, asked(), Host="evil.example", Origin=PAGES[0][0]).status_code == (401 if key else 403)
        assert "access-control-allow-origin" not in server.http.get(server.root + "/health").headers
