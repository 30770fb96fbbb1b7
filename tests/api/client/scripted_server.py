"""A small real HTTP server that answers with what a test has written down."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `cut` closes the connection after the body without the end of a chunked stream."""

    status: int = 200
    body: bytes = b""
    media_type: str = "application/json"
    cut: bool = False


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """What a client has sent; names of headers in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class ScriptedServer:
    """Replies in order; the last one is repeated."""

    url: str
    replies: list[Reply] = field(default_factory=list)
    requests: list[ReceivedRequest] = field(default_factory=list)

    def answer(self, *replies: Reply) -> None:
        self.replies[:] = replies

    def next_reply(self) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


def json_reply(record: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(record).encode())


def problem_reply(status: int, code: str, detail: str, **members: Any) -> Reply:
    body = json.dumps({"status": status, "code": code, "detail": detail, **members}).encode()
    return Reply(status, body, "application/problem+json; charset=utf-8")


def stream_reply(text: str, *, cut: bool = False) -> Reply:
    return Reply(200, text.encode(), "text/event-stream; charset=utf-8", cut)


@contextmanager
def serve_replies() -> Iterator[ScriptedServer]:
    """Run the server on a free port of the loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("content-length", 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            script.requests.append(ReceivedRequest(self.command, self.path, headers, self.rfile.read(length)))
            reply = script.next_reply()
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.media_type)
            if reply.cut:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(f"{len(reply.body):x}\r\n".encode() + reply.body + b"\r\n")
                self.close_connection = True
                return
            if reply.status != 204:
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    for method in ("DELETE", "POST", "PUT"):
        setattr(Handler, f"do_{method}", Handler.do_GET)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        script = ScriptedServer(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()
