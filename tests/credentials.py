"""Who a client is, in the way that each client can say it."""

import datetime
import hashlib
import hmac
import os
import urllib.parse

import requests


class Nobody:
    """A service that asks nobody."""

    requests, environment, header, user = None, {}, None, ("", "")
    # Whether clients can say it that know headers and passwords, but no signatures.
    plain = True

    def curl(self):
        return []


class Token(Nobody):
    """A bearer token `<name>.<secret>`, which is also a password."""

    def __init__(self, token):
        self.token = token
        self.environment = {"STEPWES_TOKEN": token}
        self.header = f"Authorization: Bearer {token}"
        self.user = (token.split(".")[0], token)

    def requests(self, request):
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request

    def curl(self):
        return ["--header", self.header]


class User(Nobody):
    """A name and a password (basic auth)."""

    def __init__(self, name, password):
        self.requests = requests.auth.HTTPBasicAuth(name, password)
        self.environment, self.user = {"STEPWES_USER": f"{name}:{password}"}, (name, password)
        probe = self.requests(requests.Request("GET", "http://localhost").prepare())
        self.header = f"Authorization: {probe.headers['Authorization']}"

    def curl(self):
        return ["--user", ":".join(self.user)]


def signature(secret, scope, time, canonical):
    """The signature of a canonical request.
    <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>"""
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in (*scope.split("/"), "\n".join(["AWS4-HMAC-SHA256", time, scope, digest])):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


class SigV4(requests.auth.AuthBase):
    """Signs requests as AWS's clients do."""

    def __init__(self, service, key, secret, session=None, region="us-east-1"):
        self.service, self.id, self.secret, self.session, self.region = service, key, secret, session, region

    def __call__(self, request):
        url = urllib.parse.urlsplit(request.url)
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        request.headers["X-Amz-Date"] = now
        if self.session:
            request.headers["X-Amz-Security-Token"] = self.session
        signed = {"host": url.netloc} | {
            name.lower(): value for name, value in request.headers.items() if name.lower().startswith("x-amz-")
        }
        query = sorted(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        names = ";".join(sorted(signed))
        # Paths are encoded a second time, save those of S3.
        path = url.path or "/"
        canonical = "\n".join([
            request.method, path if self.service == "s3" else urllib.parse.quote(path, safe="/-_.~"),
            "&".join("=".join(urllib.parse.quote(each, safe="-_.~") for each in pair) for pair in query),
            *(f"{name}:{signed[name].strip()}" for name in sorted(signed)), "",
            names, hashlib.sha256(body).hexdigest(),
        ])
        scope = f"{now[:8]}/{self.region}/{self.service}/aws4_request"
        request.headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.id}/{scope}, SignedHeaders={names}, "
            f"Signature={signature(self.secret, scope, now, canonical)}"
        )
        return request


class Signed(Nobody):
    """A key pair of AWS's, by which every request is signed (AuthMode iam)."""

    plain = False

    def __init__(self, auth):
        self.requests = auth


def from_environment():
    """Those for the service that STEPWES_TEST_URL names."""
    if token := os.environ.get("STEPWES_TEST_TOKEN"):
        return Token(token)
    if user := os.environ.get("STEPWES_TEST_USER"):
        return User(*user.split(":", 1))
    return Nobody()
