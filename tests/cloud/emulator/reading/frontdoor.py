"""How requests come in: over what counts as TLS, and at a port that is the API's alone.

- Policies that ask for TLS see it: on AWS there is nothing else, here everything is on loopback.
- API Gateway says in `X-Forwarded-Proto` how a request came; on AWS that is https.
- API Gateway has a port of its own, as an API with a custom domain has a name of its own: `*.execute-api.localhost`
  resolves on some machines only.
"""

import os

from ministack import app
from ministack.core import iam_evaluator
from ministack.services import apigateway

API = f"127.0.0.1:{os.environ['API_PORT']}"

pin_request_origin = iam_evaluator.pin_request_origin
app.pin_request_origin = lambda address, _secure: pin_request_origin(address, True)
parse_execute_api_url = app._parse_execute_api_url


def parse_execute_api_url_or_port(host, path):
    if host != API:
        return parse_execute_api_url(host, path)
    apis = [key[-1] for key in apigateway._apis._data]
    if len(apis) != 1:
        return None
    (api,) = apis
    first, _, rest = path.lstrip("/").partition("/")
    return api, first or "$default", "/" + rest


app._parse_execute_api_url = parse_execute_api_url_or_port
handle_execute = apigateway.handle_execute


async def handle_execute_forwarded(api, stage, path, method, headers, *rest, **more):
    return await handle_execute(api, stage, path, method, {**headers, "x-forwarded-proto": "http"}, *rest, **more)


apigateway.handle_execute = handle_execute_forwarded
