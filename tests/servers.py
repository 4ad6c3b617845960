"""Servers of streams for tests: HTTP with whatever a path is to do, and a small RTSP camera."""

from __future__ import annotations

import base64
import socket
import struct
import threading
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import cv2


@contextmanager
def http_server(answers):
    """Serve `answers`: from a path to a function of (handler, visit number from 0).

    Gives the address of the server, the list of the paths that were asked for, and an event that
    is set at the end, for answers that wait.
    """
    asked, over = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            try:
                answers[self.path.partition("?")[0]](self, asked.count(self.path) - 1, over)
            except KeyError:
                self.send_error(404)
            except OSError:
                pass  # the reader is gone

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}", asked
        finally:
            over.set()
            server.shutdown()
            thread.join()


def whole(path):
    """A file with its length, and parts of it on request."""

    def answer(handler, visit, over):
        data = path.read_bytes()
        begin = int(handler.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        handler.send_response(206)
        handler.send_header("Content-Length", str(len(data) - begin))
        handler.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        handler.send_header("Accept-Ranges", "bytes")
        handler.end_headers()
        handler.wfile.write(data[begin:])

    return answer


def live(path, *, visits=99, stalls=False):
    """Bytes without a length, on the first visits; then 404. stalls: and then silence."""

    def answer(handler, visit, over):
        if visit >= visits:
            raise KeyError("gone")
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(path.read_bytes())
        if stalls:
            over.wait()

    return answer


def h264(pictures):
    """The units of each picture, as a camera sends them."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = pictures[0].shape[:2]
    encoder.pix_fmt, encoder.time_base, encoder.gop_size = "yuv420p", Fraction(1, 25), 1000
    encoder.options = {"tune": "zerolatency", "x264-params": "repeat-headers=1"}
    frames = []
    for number, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts = number
        data = b"".join(map(bytes, encoder.encode(frame)))
        parts = data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")
        frames.append([part for part in parts if part])
    return frames


def pushed(pieces):
    """A picture after the other as JPEG, as web cameras push them.

    pieces: a function of (visit number from 0, event of the end) -> arrays, RGB.
    """

    def answer(handler, visit, over):
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        for picture in pieces(visit, over):
            data = cv2.imencode(".jpg", picture[:, :, ::-1])[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            handler.wfile.write(head.encode() + data + b"\r\n")

    return answer


@contextmanager
def rtsp_camera(units):
    """A camera at rtsp://HOST: each visitor gets all frames at once, over the same connection.

    units: per frame its H.264 units, without start codes; 25 frames a second.
    """
    over = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    threads = []

    def accept():
        while True:
            try:
                visitor, _ = server.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(visitor, units, over)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        over.set()
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for thread in (accepting, *threads):
            thread.join()


def serve(visitor, units, over):
    """Answer a visitor's requests until it plays, then send the frames and wait."""
    parameters = [base64.b64encode(unit).decode() for unit in units[0] if unit[0] & 31 in (7, 8)]
    sdp = (
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
        "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:track\r\n"
        f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={','.join(parameters)}\r\n"
    )
    with visitor, visitor.makefile("rb") as lines:
        try:
            while request := lines.readline().decode():
                headers = dict(
                    line.decode().strip().split(": ", 1) for line in iter(lines.readline, b"\r\n")
                )
                kind = request.split()[0]
                body = sdp if kind == "DESCRIBE" else ""
                visitor.sendall(
                    (
                        f"RTSP/1.0 200 OK\r\nCSeq: {headers['CSeq']}\r\nSession: 1\r\n"
                        "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
                        "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                        + ("Content-Type: application/sdp\r\n" if body else "")
                        + f"Content-Length: {len(body)}\r\n\r\n{body}"
                    ).encode()
                )
                if kind == "PLAY":
                    visitor.sendall(b"".join(packets(units)))
                    over.wait()
                    return
        except OSError:
            return  # the reader is gone


def packets(units):
    """RTP packets (RFC 6184, a unit each) as RTSP interleaves them."""
    sequence = 0
    for number, frame in enumerate(units):
        for place, unit in enumerate(frame):
            mark = 128 if place == len(frame) - 1 else 0
            header = struct.pack(">BBHII", 128, 96 | mark, sequence, number * 3600, 7)
            packet = header + unit
            yield b"$\0" + struct.pack(">H", len(packet)) + packet
            sequence += 1
