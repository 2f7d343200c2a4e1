"""As much of S3 as the relay uses, over HTTP on loopback: put, copy, get a range, list, delete several."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Bucket(ThreadingHTTPServer):
    """Objects of one bucket, in memory; `broken` makes it answer 500."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.objects: dict[str, bytes] = {}
        self.signed = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Request(BaseHTTPRequestHandler):
    server: Bucket
    protocol_version = "HTTP/1.1"

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix("/bucket/")

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def do_PUT(self) -> None:
        self.server.signed += self.headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256")
        body = self._body()
        if source := unquote(self.headers.get("x-amz-copy-source", "")):
            self.server.objects[self._key()] = self.server.objects[source.lstrip("/").removeprefix("bucket/")]
            self._answer(200, b'<CopyObjectResult><ETag>"1"</ETag></CopyObjectResult>')
            return
        self.server.objects[self._key()] = body
        self._answer(200, ETag='"1"')

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self._list(query["prefix"][0])
            return
        data = self.server.objects.get(self._key())
        if data is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert found is not None
        first, last = int(found[1]), min(int(found[2]), len(data) - 1)
        self._answer(
            206,
            data[first : last + 1],
            ETag='"1"',
            Last_Modified="Tue, 01 Jul 2025 00:00:00 GMT",
            Content_Range=f"bytes {first}-{last}/{len(data)}",
        )

    def _list(self, prefix: str) -> None:
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size><ETag>1</ETag>"
            "<LastModified>2025-07-01T00:00:00.000Z</LastModified></Contents>"
            for key, data in sorted(self.server.objects.items())
            if key.startswith(prefix)
        )
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
        self._answer(200, text.encode(), Content_Type="application/xml")

    def do_POST(self) -> None:
        keys = re.findall(r"<Key>([^<]*)</Key>", self._body().decode())
        for key in keys:
            self.server.objects.pop(key, None)
        text = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        self._answer(200, f"<DeleteResult>{text}</DeleteResult>".encode(), Content_Type="application/xml")

    def log_message(self, format: str, *values: object) -> None:
        pass
