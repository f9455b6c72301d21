"""A stand-in for the Hub on loopback that speaks what huggingface_hub asks of it, and fails as told.

Repositories live in memory: branches of commits, each a map from path to bytes. Large files arrive through
LFS (batch, PUT, verify) and are known by their SHA-256, as on the Hub.
"""

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.loopback import running

TOKEN = "hf_" + "standIn0" * 4  # of the user `me`, who may write to me/*
READER = "hf_" + "readOnly" * 4  # of a user who may write nothing
LARGE = (".parquet",)


@dataclass
class Repo:
    """A data set: its branches (newest commit first), and whether it is private."""

    private: bool
    branches: dict[str, list[str]] = field(default_factory=dict)
    trees: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, tree: dict[str, bytes]) -> str:
        sha = hashlib.sha1(f"{len(self.trees)}{branch}".encode()).hexdigest()
        self.trees[sha] = tree
        self.branches[branch] = [sha, *self.branches.get(branch, [])]
        return sha

    def tree(self, revision: str) -> dict[str, bytes] | None:
        sha = self.branches[revision][0] if revision in self.branches else revision
        return self.trees.get(sha)


Fault = Callable[["Handler"], bool]  # answers (or breaks) the request itself and says so


class HubServer(ThreadingHTTPServer):
    """`asked` counts requests by what they are for; `faults` come before the answers, each once, by that name."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.stored: Counter[str] = Counter()  # how often each object arrived whole
        self.asked: Counter[str] = Counter()
        self.faults: dict[str, list[Fault]] = {}
        self.tokens: set[str | None] = set()
        self.lock = threading.RLock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def files(self, repo_id: str, branch: str = "main") -> dict[str, bytes]:
        found = self.repos[repo_id].tree(branch)
        assert found is not None
        return found

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # connections are cut on purpose


def status(code: int, **headers: str) -> Fault:
    """Answer with this status."""

    def fail(handler: "Handler") -> bool:
        handler.body()
        handler.send(code, {"error": "injected"}, **headers)
        return True

    return fail


def cut(handler: "Handler") -> bool:
    """Break the connection after half of what the client sends."""
    handler.rfile.read(int(handler.headers.get("Content-Length") or 0) // 2)
    handler.break_off()
    return True


def cut_after_answering(handler: "Handler") -> bool:
    """Do what is asked, and break the connection before saying so."""
    handler.mute = True
    handler.route()
    handler.break_off()
    return True


def cut_in_answer(handler: "Handler") -> bool:
    """Send half of the answer, and break the connection."""
    handler.half = True
    handler.route()
    handler.break_off()
    return True


class Handler(BaseHTTPRequestHandler):
    """The endpoints, each a method."""

    server: HubServer
    protocol_version = "HTTP/1.1"
    mute = half = False

    def answer(self) -> None:
        self.path, self.query = urlsplit(self.path).path, urlsplit(self.path).query
        with self.server.lock:
            name = self.purpose()
            self.server.asked[name] += 1
            self.server.tokens.add((self.headers.get("Authorization") or "").removeprefix("Bearer ") or None)
            fault = (self.server.faults.get(name) or [None]).pop(0) if self.server.faults.get(name) else None
            if fault is None or not fault(self):
                self.route()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def purpose(self) -> str:
        for name, form in ROUTES.items():
            if re.fullmatch(form, f"{self.command} {self.path}"):
                return name
        return "unknown"

    def route(self) -> None:
        name = self.purpose()
        if name == "unknown":
            self.send(404, {"error": f"no such endpoint: {self.command} {self.path}"})
            return
        match = re.fullmatch(ROUTES[name], f"{self.command} {self.path}")
        assert match is not None
        parts = [unquote(part) for part in match.groups()]
        repo = self.server.repos.get(parts[0]) if parts and "/" in parts[0] else None
        needs_repo = name not in ("create", "yaml", "whoami", "put", "verify")
        if name not in ("yaml", "put") and self.command not in ("GET", "HEAD") and not self.may_write(parts):
            return
        if needs_repo and (repo is None or (repo.private and self.token not in (TOKEN, READER))):
            self.body()
            self.send(404 if self.token else 401, {"error": "not found"}, X_Error_Code="RepoNotFound")
            return
        getattr(self, "on_" + name)(*([repo, *parts[1:]] if needs_repo else parts))

    @property
    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def may_write(self, parts: list[str]) -> bool:
        if self.token == TOKEN and (not parts or "/" not in parts[0] or parts[0].startswith("me/")):
            return True
        self.body()
        self.send(403 if self.token in (TOKEN, READER) else 401, {"error": "Invalid username or password."})
        return False

    def body(self) -> bytes:
        if not hasattr(self, "_body"):
            if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
                data = b""
                while size := int(self.rfile.readline(), 16):
                    data += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._body = data
        return self._body

    def handle_one_request(self) -> None:
        self.__dict__.pop("_body", None)
        self.mute = self.half = False
        super().handle_one_request()

    def send(self, code: int, body: Any, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if self.mute:
            return
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if self.half else data)

    def break_off(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(2)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    # The endpoints

    def on_create(self) -> None:
        asked = json.loads(self.body())
        repo_id = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if not repo_id.startswith("me/"):
            self.send(403, {"error": "You don't have the rights to create a dataset under this namespace"})
            return
        url = {"url": f"{self.server.url}/datasets/{repo_id}", "id": repo_id, "name": repo_id}
        if repo_id in self.server.repos:
            self.send(409, url | {"error": "You already created this dataset repo"})
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.server.repos[repo_id] = Repo(private)
        self.server.repos[repo_id].commit("main", {".gitattributes": b"*.parquet filter=lfs\n"})
        self.send(200, url)

    def on_yaml(self) -> None:
        self.body()
        self.send(200, {"errors": [], "warnings": []})

    def on_whoami(self) -> None:
        known = self.token in (TOKEN, READER)
        self.send(
            200 if known else 401, {"name": "me", "type": "user"} if known else {"error": "Unauthorized"}
        )

    def on_branch(self, repo: Repo, branch: str) -> None:
        self.body()
        if branch in repo.branches:
            self.send(409, {"error": "Reference already exists"})
            return
        repo.branches[branch] = list(repo.branches["main"])
        self.send(200, {})

    def on_preupload(self, repo: Repo, branch: str) -> None:
        tree = repo.tree(branch) or {}
        files = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                **({"oid": _oid(one["path"], tree[one["path"]])} if one["path"] in tree else {}),
            }
            for one in json.loads(self.body())["files"]
        ]
        self.send(200, {"files": files})

    def on_batch(self, repo: Repo) -> None:
        objects = []
        for one in json.loads(self.body())["objects"]:
            answer = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.server.objects:
                href = f"{self.server.url}/objects/{one['oid']}"
                answer["actions"] = {"upload": {"href": href}, "verify": {"href": href + "/verify"}}
            objects.append(answer)
        self.send(200, {"transfer": "basic", "objects": objects})

    def on_put(self, oid: str) -> None:
        data = self.body()
        if hashlib.sha256(data).hexdigest() != oid:
            self.send(400, {"error": "not what was announced"})
            return
        self.server.objects[oid] = data
        self.server.stored[oid] += 1
        self.send(200, {})

    def on_verify(self, oid: str) -> None:
        size = json.loads(self.body())["size"]
        self.send(200 if len(self.server.objects.get(oid, b"")) == size else 404, {})

    def on_commit(self, repo: Repo, branch: str) -> None:
        tree = dict(repo.tree(branch) or {})
        for line in self.body().splitlines():
            one = json.loads(line)
            value = one["value"]
            if one["key"] == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif one["key"] == "lfsFile":
                tree[value["path"]] = self.server.objects[value["oid"]]
            elif one["key"] == "deletedFile":
                del tree[value["path"]]
        sha = repo.commit(branch, tree)
        name = next(name for name, one in self.server.repos.items() if one is repo)
        url = f"{self.server.url}/datasets/{name}/commit/{sha}"
        self.send(200, {"success": True, "commitOid": sha, "commitUrl": url})

    def on_info(self, repo: Repo, revision: str = "main") -> None:
        if repo.tree(revision) is None:
            self.send(404, {"error": "Revision Not Found"}, X_Error_Code="RevisionNotFound")
            return
        repo_id = next(name for name, one in self.server.repos.items() if one is repo)
        sha = repo.branches[revision][0] if revision in repo.branches else revision
        siblings = [{"rfilename": path} for path in repo.trees[sha]]
        self.send(200, {"id": repo_id, "sha": sha, "private": repo.private, "siblings": siblings})

    on_info_at = on_info

    def on_tree(self, repo: Repo, revision: str, folder: str = "") -> None:
        files = []
        for path, data in (repo.tree(revision) or {}).items():
            if folder and path.rpartition("/")[0] != folder:
                continue
            large = {"lfs": {"oid": _oid(path, data), "size": len(data), "pointerSize": 130}}
            blob = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            files.append(blob | (large if path.endswith(LARGE) else {}))
        self.send(200, files)

    on_tree_in = on_tree

    def on_resolve(self, repo: Repo, revision: str, path: str) -> None:
        tree = repo.tree(revision)
        if tree is None or path not in tree:
            self.send(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
            return
        sha = repo.branches[revision][0] if revision in repo.branches else revision
        data, headers = tree[path], {"ETag": f'"{_oid(path, tree[path])}"', "X_Repo_Commit": sha}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked:
            start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            headers["Content_Range"] = f"bytes {start}-{end}/{len(data)}"
            self.send(206, data[start : end + 1], **headers)
        else:
            self.send(200, data, **headers)


_REPO = r"([\w.-]+/[\w.-]+)"
ROUTES = {
    "create": r"POST /api/repos/create",
    "yaml": r"POST /api/validate-yaml",
    "whoami": r"GET /api/whoami-v2",
    "branch": rf"POST /api/datasets/{_REPO}/branch/([^/]+)",
    "preupload": rf"POST /api/datasets/{_REPO}/preupload/([^/]+)",
    "batch": rf"POST /datasets/{_REPO}\.git/info/lfs/objects/batch",
    "put": r"PUT /objects/([0-9a-f]{64})",
    "verify": r"POST /objects/([0-9a-f]{64})/verify",
    "commit": rf"POST /api/datasets/{_REPO}/commit/([^/]+)",
    "info": rf"GET /api/datasets/{_REPO}",
    "info_at": rf"GET /api/datasets/{_REPO}/revision/([^/]+)",
    "tree": rf"GET /api/datasets/{_REPO}/tree/([^/]+)",
    "tree_in": rf"GET /api/datasets/{_REPO}/tree/([^/]+)/(.+)",
    "head": rf"HEAD /datasets/{_REPO}/resolve/([^/]+)/(.+)",
    "resolve": rf"GET /datasets/{_REPO}/resolve/([^/]+)/(.+)",
}
Handler.on_head = Handler.on_resolve  # type: ignore[attr-defined]


def _oid(path: str, data: bytes) -> str:
    """SHA-256 of a large file; of a small one git's hash of the blob."""
    if path.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def hub_server() -> AbstractContextManager[HubServer]:
    """A stand-in in threads of this process."""
    return running(HubServer())
