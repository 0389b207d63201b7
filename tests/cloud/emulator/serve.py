"""Starts ministack on loopback, with what `reading` puts right. `GATEWAY_PORT` is AWS's, `API_PORT` the API's."""

import asyncio
import os
import signal
import sys

# Read by ministack when it is imported. Policies are evaluated, and callers known by their signatures.
os.environ |= {"AUTH": "true", "LAMBDA_EXECUTOR": "local", "IOT_MTLS_ENABLED": "0"}

import hypercorn.asyncio  # noqa: E402
import hypercorn.config  # noqa: E402
from ministack import app  # noqa: E402

import reading.ecs  # noqa: E402, F401
import reading.frontdoor  # noqa: E402, F401
import reading.iam  # noqa: E402, F401
import reading.stepfunctions  # noqa: E402, F401


async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    config = hypercorn.config.Config()
    config.bind = [f"127.0.0.1:{os.environ[name]}" for name in ("GATEWAY_PORT", "API_PORT")]
    config.keep_alive_timeout, config.graceful_timeout, config.loglevel = 75, 1, "WARNING"
    await hypercorn.asyncio.serve(app.app, config, shutdown_trigger=stop.wait)


if __name__ == "__main__":
    asyncio.run(main())
    # Threads of executions and tasks are still at work: whoever started us ends what they started.
    sys.stdout.flush()
    os._exit(0)
