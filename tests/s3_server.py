"""A stand-in for S3 on loopback that speaks what s3fs asks of it, and fails as often as told.

Objects live in memory, as one map from `bucket/key` to bytes. `failing` is the share of requests that fail: half of
them before they have an effect (500, 503, a cut connection), half after it, so that only the answer is lost.
"""

import hashlib
import random
import re
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.loopback import running

KEY, SECRET = "standin-key", "standin-secret"
BUCKET = "bucket"
_PAGE = 7  # names in one answer to a listing


class S3Server(ThreadingHTTPServer):
    """`log` has every change, in order: `PUT bucket/key`, `DELETE bucket/key`; `failed` counts the faults by kind."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.buckets = {BUCKET}
        self.failing = 0.0
        self.dice = random.Random(5)
        self.failed: Counter[str] = Counter()
        self.log: list[str] = []
        self.refuse: Callable[[str], bool] = lambda change: (
            False
        )  # of changes, before they are made: answered with 500
        self.lock = threading.RLock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def names(self, folder: str) -> set[str]:
        """The objects below `bucket/folder`, relative to it, hidden ones left out."""
        below = (name.removeprefix(f"{folder}/") for name in self.objects if name.startswith(f"{folder}/"))
        return {name for name in below if not name.startswith(".")}

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # connections are cut on purpose


class Handler(BaseHTTPRequestHandler):
    """Objects, listings, and what s3fs asks of buckets."""

    server: S3Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self) -> None:
        parts = urlsplit(self.path)
        self.name, self.query = unquote(parts.path).strip("/"), parse_qs(parts.query, keep_blank_values=True)
        self.sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.fault()
        if fault == "cut before":
            self.close_connection = True
        elif fault in ("500", "503"):
            self.error(int(fault), {"500": "InternalError", "503": "SlowDown"}[fault])
        else:
            self.mute = fault is not None
            with self.server.lock:
                self.route()
            if fault == "cut after":
                self.close_connection = True
            elif fault == "500 after":
                self.mute = False
                self.error(500, "InternalError")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer
    mute = False

    def fault(self) -> str | None:
        with self.server.lock:
            if self.server.dice.random() >= self.server.failing:
                return None
            kind = self.server.dice.choice(["500", "503", "cut before", "cut after", "500 after"])
            self.server.failed[kind] += 1
            return kind

    def route(self) -> None:
        bucket, _, key = self.name.partition("/")
        if KEY not in (self.headers.get("Authorization") or ""):
            self.error(403, "InvalidAccessKeyId")
        elif bucket not in self.server.buckets:
            self.error(404, "NoSuchBucket")
        elif self.command in ("PUT", "DELETE") and self.server.refuse(f"{self.command} {self.name}"):
            self.error(500, "InternalError")
        elif not key:
            self.on_bucket(bucket)
        else:
            getattr(self, f"on_{self.command}")()

    def on_bucket(self, bucket: str) -> None:
        if self.command != "GET" or "list-type" not in self.query:
            self.reply(200, b"")
            return
        prefix, after = self.asked("prefix"), self.asked("continuation-token")
        stem = f"{bucket}/{prefix}"
        names = sorted(
            name.removeprefix(f"{bucket}/") for name in self.server.objects if name.startswith(stem)
        )
        if self.asked("delimiter"):
            names = [name for name in names if "/" not in name.removeprefix(prefix).rstrip("/")]
        page = [name for name in names if name > after][:_PAGE]
        more = bool(page) and page[-1] != names[-1]
        rows = "".join(self.row(name, self.server.objects[f"{bucket}/{name}"]) for name in page)
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        self.reply(
            200,
            f"<ListBucketResult><Name>{bucket}</Name><KeyCount>{len(page)}</KeyCount>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}</ListBucketResult>".encode(),
        )

    def asked(self, name: str) -> str:
        return self.query.get(name, [""])[0]

    def row(self, name: str, data: bytes) -> str:
        return (
            f"<Contents><Key>{escape(name)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{_tag(data)}&quot;</ETag><Size>{len(data)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )

    def on_GET(self) -> None:
        data = self.server.objects.get(self.name)
        if data is None:
            self.error(404, "NoSuchKey")
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        headers = {
            "ETag": f'"{_tag(data)}"',
            "Last-Modified": formatdate(0, usegmt=True),
            "Accept-Ranges": "bytes",
        }
        if asked:
            start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
            self.reply(206, data[start : end + 1], headers)
        else:
            self.reply(200, data, headers)

    on_HEAD = on_GET

    def on_PUT(self) -> None:
        if self.headers.get("If-None-Match") == "*" and self.name in self.server.objects:
            self.error(412, "PreconditionFailed")
            return
        source = unquote(self.headers.get("x-amz-copy-source") or "").lstrip("/").partition("?")[0]
        if source and source not in self.server.objects:
            self.error(404, "NoSuchKey")
            return
        data = self.server.objects[source] if source else self.sent
        self.server.objects[self.name] = data
        self.server.log.append(f"PUT {self.name}")
        tag = f"<ETag>&quot;{_tag(data)}&quot;</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        body = f"<CopyObjectResult>{tag}</CopyObjectResult>".encode() if source else b""
        self.reply(200, body, {"ETag": f'"{_tag(data)}"'})

    def on_DELETE(self) -> None:
        self.server.objects.pop(self.name, None)
        self.server.log.append(f"DELETE {self.name}")
        self.reply(204, b"")

    def error(self, code: int, name: str) -> None:
        self.reply(
            code,
            f"<Error><Code>{name}</Code><Message>{name} of {escape(self.name)}</Message></Error>".encode(),
        )

    def reply(self, code: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        if self.mute:
            return
        self.send_response(code)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if code != 204:
            self.send_header(
                "Content-Type", "application/xml" if data.startswith(b"<") else "binary/octet-stream"
            )
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD" and code != 204:
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _tag(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def s3_server() -> AbstractContextManager[S3Server]:
    """A stand-in in threads of this process."""
    return running(S3Server())


def environment(server: S3Server) -> dict[str, str]:
    """What makes every S3 client of a process speak to it, and leave repetition to stepconf."""
    return {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
