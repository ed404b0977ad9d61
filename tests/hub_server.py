"""A small model hub: the endpoints that an upload by huggingface_hub calls, over real HTTP. Fails as configured."""

import base64
import hashlib
import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

ENDPOINTS = ("create", "preupload", "batch", "commit", "validate-yaml")
TOKEN = "hf_TheRightKeyForThisServer"


class HubServer:
    """Repositories by name, each with its files by path. `refuses` maps an endpoint's name to (status, body)."""

    def __init__(self, refuses: Mapping[str, tuple[int, dict[str, Any]]] | None = None, existing: tuple[str, ...] = ()) -> None:
        self.refuses = dict(refuses or {})
        self.repositories: dict[str, dict[str, bytes]] = {name: {} for name in existing}
        self.private: dict[str, bool] = {}
        self.commits: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.paths: list[str] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> "HubServer":
        Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(404, {"error": "Not found"})

    def do_POST(self) -> None:
        body = self._read()
        self.hub.paths.append(self.path)
        name = next(
            (name for name in ("create", "preupload", "batch", "commit", "validate-yaml") if f"/{name}" in self.path), ""
        )
        if name in self.hub.refuses:
            return self._answer(*self.hub.refuses[name])
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid credentials in Authorization header"})
        return getattr(self, f"_{name.replace('-', '_')}")(body)

    def do_PUT(self) -> None:
        body = self._read()
        self.hub.objects[hashlib.sha256(body).hexdigest()] = body
        self._answer(200, {})

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            return self._answer(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
        self.hub.repositories[name], self.hub.private[name] = (
            {},
            bool(asked.get("private") or asked.get("visibility") == "private"),
        )
        return self._answer(200, {"url": f"{self.hub.url}/{name}"})

    def _validate_yaml(self, body: bytes) -> None:
        self._answer(200, {"errors": [], "warnings": []})

    def _preupload(self, body: bytes) -> None:
        files = json.loads(body)["files"]
        large = [{"path": one["path"], "uploadMode": self._mode(one["path"]), "shouldIgnore": False} for one in files]
        self._answer(200, {"files": large})

    @staticmethod
    def _mode(path: str) -> str:
        return "lfs" if path.endswith((".safetensors", ".gguf", "tokenizer.json")) else "regular"

    def _batch(self, body: bytes) -> None:
        wanted = json.loads(body)["objects"]
        actions = {"upload": {"href": f"{self.hub.url}/objects"}}
        objects = [{"oid": one["oid"], "size": one["size"], "actions": actions} for one in wanted]
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _commit(self, body: bytes) -> None:
        owner, name = self.path.split("/")[3:5]
        files = self.hub.repositories[f"{owner}/{name}"]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.hub.commits.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        url = f"{self.hub.url}/{owner}/{name}/commit/{len(self.hub.commits):040x}"
        self._answer(200, {"success": True, "commitOid": f"{len(self.hub.commits):040x}", "commitUrl": url})

    def _(self, body: bytes) -> None:
        self._answer(404, {"error": f"no endpoint {self.path}"})

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if "error" in body:
            self.send_header("X-Error-Message", str(body["error"]))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass
