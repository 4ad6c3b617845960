"""A receiver of webhooks on this machine, in threads of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Got:
    """A request that came. method and path, headers by their small names, the bytes."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Receiver:
    """Answers each request by `answer(number of the request from 1)`: a status, or a status and
    headers, or None to close the connection without a word. port: 0 for any. To be used in a
    `with` block."""

    def __init__(self, answer: Callable[[int], object] = lambda number: 204, port: int = 0) -> None:
        self.got: list[Got] = []
        self.came = threading.Semaphore(0)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.got.append(Got(f"{self.command} {self.path}", headers, body))
                said = answer(len(outer.got))
                outer.came.release()
                self.close_connection = True
                if said is None:
                    return
                status, extra = said if isinstance(said, tuple) else (said, {})
                self.send_response(status)
                for name, value in extra.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *words):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self, count: int) -> list[Got]:
        """The requests, when so many more than before have come."""
        for _ in range(count):
            assert self.came.acquire(timeout=20)
        return self.got

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *trouble):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
