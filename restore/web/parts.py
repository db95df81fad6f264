"""The parts of a request's body, checked before they are read: what nobody reads is refused."""

from typing import Any

from fastapi import Depends, Request
from starlette.datastructures import UploadFile

from restore.errors import UsageError

FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
UPLOADS = 64  # files of one request
TEXT = "request"  # the part that is JSON; all others are files


def require_form(*known: str, several: str = "") -> Any:
    """Return a dependency of a route that refuses what the form must not hold.

    Args:
        *known: Names of the files that it may hold, beside the JSON of its part `request`.
        several: The name of which there may be up to UPLOADS.
    """

    async def check(request: Request) -> None:
        refuse_query(request)
        kind = media_type(request)
        if kind and kind not in FORMS:
            raise UsageError(f"request: send a form, multipart/form-data, not {kind}")
        form = await request.form()  # FastAPI has read it already
        for name in form:
            if name not in (*known, TEXT):
                there = ", ".join((*known, TEXT))
                mend = f"options stand in the JSON of its part `{TEXT}`; the parts are {there}"
                raise UsageError(f"request: {name[:64]!r} is no part of this form: {mend}")
            values = form.getlist(name)
            most = UPLOADS if name == several else 1
            if len(values) > most:
                mend = "share them among requests"
                raise UsageError(f"request: {name}: {most} at most, not {len(values)}; {mend}")
            is_file = isinstance(values[0], UploadFile)
            if name == TEXT and is_file:
                mend = f"send its text, as curl does with -F '{TEXT}=<FILE'"
                raise UsageError(f"request: {name}: is a file; {mend}")
            if name != TEXT and not is_file:
                mend = f"curl sends one with -F {name}=@FILE"
                raise UsageError(f"request: {name}: is text, not a file; {mend}")

    return Depends(check)


async def require_json(request: Request) -> None:
    """Refuse a body that is not said to be JSON."""
    refuse_query(request)
    kind = media_type(request)
    if kind != "application/json":
        told = f"not {kind}" if kind else "which is missing"
        raise UsageError(f"request: send JSON as Content-Type: application/json, {told}")


def refuse_query(request: Request) -> None:
    """Refuse options in the address, where nobody reads them."""
    for name in request.query_params:
        mend = "options stand in the request's JSON, not in its address"
        raise UsageError(f"request: ?{name[:64]}=: {mend}")


def media_type(request: Request) -> str:
    """Return the type of the body, without parameters; "" if it has none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
