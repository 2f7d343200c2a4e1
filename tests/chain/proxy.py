"""A JSON-RPC endpoint that passes a real one on and bends what a test wants bent."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Bend = Callable[[str, list[Any], dict[str, Any]], dict[str, Any] | None]
"""Gets method, parameters and the true response; gives another response, or None for the true one."""


class Endpoint:
    """Where a proxy listens, and what it saw."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.posts = 0
        self.methods: list[str] = []


@contextmanager
def proxy(
    port: int, bend: Bend | None = None, raw: Callable[[bytes], bytes] | None = None
) -> Iterator[Endpoint]:
    """An endpoint before the chain on this port. `raw` replaces the bytes of whole answers."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            endpoint.posts += 1
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("POST", "/", body, {"Content-Type": "application/json"})
            answer = connection.getresponse().read()
            connection.close()
            answer = self.bent(json.loads(body), json.loads(answer))
            if raw is not None:
                answer = raw(answer)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def bent(self, asked: Any, told: Any) -> bytes:
            single = isinstance(asked, dict)
            requests = {request["id"]: request for request in ([asked] if single else asked)}
            responses = []
            for response in [told] if single else told:
                request = requests[response["id"]]
                endpoint.methods.append(request["method"])
                other = bend(request["method"], request["params"], response) if bend is not None else None
                responses.append(response if other is None else other)
            return json.dumps(responses[0] if single else responses).encode()

        def log_message(self, format: str, *args: Any) -> None:
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
