"""Errors as RFC 9457 problem documents."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import asyncpg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from bootlink_registry.api.models.base import ProblemAnswer
from bootlink_registry.api.openapi import MEDIA_TYPE, methods_of
from bootlink_registry.database import DatabaseAway
from bootlink_registry.problems import Problem

RETRY_AFTER_SECONDS: Final = 2  # told with 503; the database is usually back by then
ERRORS_SHOWN: Final = 10  # of one body that is wrong in many ways

_REMEDIES: Final = {
    404: "the paths there are: /openapi.json",
    405: "the methods there are: /openapi.json",
    413: "images are added by their path, not by their bytes; /openapi.json says what is expected",
}


def answer(status: int, detail: str, remedy: str, **more: Any) -> JSONResponse:
    """A problem as a response."""
    problem = ProblemAnswer(title=HTTPStatus(status).phrase, status=status, detail=detail, remedy=remedy)
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 503 else None
    return JSONResponse(problem.model_dump() | more, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def install(app: FastAPI, *, log: Any) -> None:
    """Have `app` answer every error in this form."""

    @app.exception_handler(Problem)
    async def problem(_: Request, error: Problem) -> JSONResponse:
        return answer(error.status, error.detail, error.remedy, **error.more)

    @app.exception_handler(DatabaseAway)
    async def away(_: Request, error: DatabaseAway) -> JSONResponse:
        return answer(503, str(error), "repeat in a moment; a change may have been made already, so look first")

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        is_json = "json" in request.headers.get("content-type", "json")
        if not is_json and any(one["loc"] == ("body",) for one in error.errors()):
            return answer(415, "the body is not sent as JSON", "send it with the header Content-Type: application/json")
        fields = [_wrong(one) for one in error.errors()[:ERRORS_SHOWN]]
        wrong = "; ".join(f"{one['field']}: {one['problem']}" if one["field"] else one["problem"] for one in fields)
        remedy = "correct it and send the request again; /openapi.json says what is expected"
        return answer(422, wrong, remedy, fields=fields)

    @app.exception_handler(asyncpg.DataError)
    async def unstorable(_: Request, error: asyncpg.DataError) -> JSONResponse:
        return answer(422, f"a value cannot be stored: {error}", "correct it and send the request again")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:  # FastAPI's, of a body that is not even text
            return answer(422, "the body is no JSON: it is not UTF-8", "send JSON, as /openapi.json says")
        told = answer(error.status_code, str(error.detail), _REMEDIES.get(error.status_code, "see /openapi.json"))
        told.headers.update(error.headers or {})
        if error.status_code == 405:  # Starlette names the methods of the first route of this path alone
            told.headers["Allow"] = ", ".join(methods_of(app, request.url.path))
        return told

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("request failed", method=request.method, path=request.url.path, exc_info=error)
        return answer(500, "the registry failed to answer; its log says why", "report it, with that part of the log")


def _wrong(error: Any) -> dict[str, str]:
    """Which field of a request is wrong (none: it as a whole), and what is."""
    if error["type"] == "json_invalid":
        where, message = "", f"the body is no JSON: {error['ctx']['error']} (character {error['loc'][-1]})"
    else:
        where = ".".join(str(part) for part in error["loc"][1:])  # the first says body, query or path
        message = str(error["msg"]).removeprefix("Value error, ")
    return {"field": where, "problem": message}
