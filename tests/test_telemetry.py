"""FastAPI's own telemetry goes on to record what it records of any endpoint."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from tests.support import connect, serve
from wsrouter import WebSocketHandler, WebSocketRouter

pytest.importorskip("opentelemetry", reason="this FastAPI has no telemetry")
from opentelemetry import trace


class Recorder(trace.NoOpTracer):
    """A tracer that keeps the names of the spans that begin and end."""

    def __init__(self) -> None:
        self.spans: list[str] = []

    def start_as_current_span(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self._recorded(name)

    @contextmanager
    def _recorded(self, name: str) -> Generator[trace.Span]:
        self.spans.append(f"+{name}")
        yield trace.INVALID_SPAN
        self.spans.append(f"-{name}")


class Recording(trace.TracerProvider):
    def __init__(self, tracer: Recorder) -> None:
        self.tracer = tracer

    def get_tracer(self, *args: Any, **kwargs: Any) -> Recorder:
        return self.tracer


async def test_fastapi_traces_a_session_as_any_endpoint() -> None:
    """Where FastAPI records spans, that of the endpoint lasts as long as the session."""
    router = WebSocketRouter()
    during: list[str] = []
    tracer = Recorder()

    @router.handler("/")
    class Traced(WebSocketHandler):
        async def on_connect(self) -> None:
            during.extend(tracer.spans)

    telemetry: Any = {"tracer_provider": Recording(tracer), "operation_spans": True, "auto_configure": False}
    app = FastAPI(telemetry=telemetry)
    app.include_router(router)
    async with serve(app) as server, connect(server):
        pass
    assert during[-1] == "+fastapi.endpoint"
    assert tracer.spans[-1] == "-fastapi.endpoint"
