"""Starts ministack on loopback, with what `reading` puts right. `GATEWAY_PORT` is AWS's, `API_PORT` the API's."""

import asyncio
import collections
import json
import os
import re
import signal
import sys

# Read by ministack when it is imported. Policies are evaluated, and callers known by their signatures.
os.environ |= {"AUTH": "true", "LAMBDA_EXECUTOR": "local", "IOT_MTLS_ENABLED": "0"}

import hypercorn.asyncio  # noqa: E402
import hypercorn.config  # noqa: E402
from ministack import app  # noqa: E402
from ministack.services import sts  # noqa: E402

import reading.cloudformation  # noqa: E402, F401
import reading.ecs  # noqa: E402, F401
import reading.frontdoor  # noqa: E402, F401
import reading.iam  # noqa: E402, F401
import reading.s3  # noqa: E402, F401
import reading.stepfunctions  # noqa: E402, F401
from reading import functions, units  # noqa: E402

CALLS = collections.Counter()


def call(path, method, headers):
    """Whose call this is, and what it calls: `<role> <service>:<operation>`."""
    credential = re.search(r"Credential=([^/]+)/[^/]+/[^/]+/([^/]+)/", headers.get("authorization", ""))
    if not credential:
        return None
    key, service = credential.groups()
    session = sts._sessions.get(key)
    # Of arn:aws:sts::<account>:assumed-role/<role>/<session>.
    caller = session["Arn"].split("/")[1] if session else "root"
    operation = headers.get("x-amz-target", "").rpartition(".")[2]
    if service == "lambda" and path.endswith("/invocations"):
        operation = "Invoke"
    return f"{caller} {service}:{operation or method}"


async def counted(scope, receive, send):
    """ministack, with counts: of calls that were signed (`GET /_calls`), of the units they took of the table (`/_units`),
    of invocations (`/_invocations`)."""
    if scope["type"] == "http":
        shown = {"/_calls": CALLS, "/_units": units.UNITS, "/_invocations": functions.INVOCATIONS}.get(scope["path"])
        if shown is not None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
            await send({"type": "http.response.body", "body": json.dumps(shown).encode()})
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if found := call(scope["path"], scope["method"], headers):
            CALLS[found] += 1
            units.CALLER.set(found)
            cut = functions.CUTS.get(found.split(" ")[0])
            if cut and cut.reached():
                await app.app(scope, receive, nobody)
                cut.kill()
                return
    await app.app(scope, receive, send)


async def nobody(_message):
    """Whoever asked does not hear the answer any more."""


async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    config = hypercorn.config.Config()
    config.bind = [f"127.0.0.1:{os.environ[name]}" for name in ("GATEWAY_PORT", "API_PORT")]
    config.keep_alive_timeout, config.graceful_timeout, config.loglevel = 75, 1, "WARNING"
    await hypercorn.asyncio.serve(counted, config, shutdown_trigger=stop.wait)


if __name__ == "__main__":
    asyncio.run(main())
    # Threads of executions and tasks are still at work: whoever started us ends what they started.
    sys.stdout.flush()
    os._exit(0)
