"""A web server on this machine that can be as bad as a real one."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat


class Web:
    """Serves `files` (path -> bytes) on a free port, until it is closed.

    ranges: whether it honours Range. cuts: bytes after which the connection is dropped, one per
    answer; answers after the last are whole. statuses: status codes given instead, one per answer
    (None: a real answer). shift: bytes by which an answer to a Range is wrong. length: whether
    it says how long an answer is. gate: answers wait for this event, after `before_gate` bytes.
    log: (path, Range header, bytes sent) of each answer.
    """

    def __init__(self, files, *, ranges=True, cuts=(), statuses=(), shift=0, length=True):
        self.files, self.ranges, self.shift, self.length = files, ranges, shift, length
        self.cuts = chain(cuts, repeat(None))
        self.statuses = chain(statuses, repeat(None))
        self.gate, self.before_gate = threading.Event(), 0
        self.gate.set()
        self.log = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def url(self, path):
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def ranges_asked(self):
        return [asked for _, asked, _ in self.log]

    def _handler(web):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                status = next(web.statuses)
                if self.path not in web.files or status:
                    web._note(self, 0)
                    self.send_error(status or 404)
                    return
                web._answer(self, web.files[self.path])

            def log_message(self, *_):
                pass

        return Handler

    def _note(self, handler, sent):
        self.log.append((handler.path, handler.headers.get("Range"), sent))

    def _answer(self, handler, data):
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
        first = int(asked[1]) if asked and self.ranges else None
        if first is not None and first >= len(data):
            self._note(handler, 0)
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(data)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        start = 0 if first is None else first + self.shift
        whole = data[start:]
        cut = next(self.cuts)
        body = whole if cut is None else whole[:cut]
        self._note(handler, len(body))
        handler.send_response(200 if first is None else 206)
        if first is not None:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if self.length:
            handler.send_header("Content-Length", str(len(whole)))
        handler.end_headers()
        try:
            handler.wfile.write(body[: self.before_gate])
            self.gate.wait()
            handler.wfile.write(body[self.before_gate :])
        except OSError:
            pass  # the client was killed
        handler.close_connection = True
