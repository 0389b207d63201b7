"""An OpenID Connect provider on loopback, as far as an API Gateway asks one: its configuration and its keys.
<https://openid.net/specs/openid-connect-discovery-1_0.html>"""

import http.server
import json
import ssl
import threading
import time

import jwt
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa


class Issuer:
    """Issues tokens by a key that it publishes; `folder` gets the certificate of who vouches for its TLS."""

    def __init__(self, folder):
        self.key, self.kid = rsa.generate_private_key(public_exponent=65537, key_size=2048), "key-of-the-test"
        authority = trustme.CA()
        self.authority = folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_port}"
        self.asked = []

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def handler(issuer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                issuer.asked.append(self.path)
                known = {
                    "/.well-known/openid-configuration": {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"},
                    "/keys": {"keys": [issuer.published()]},
                }
                body = json.dumps(known.get(self.path, {})).encode()
                self.send_response(200 if self.path in known else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler

    def published(self):
        return json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key())) | {"kid": self.kid, "use": "sig", "alg": "RS256"}

    def public_pem(self):
        return self.key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def claims(self, **claims):
        """Those of a good token, changed; without those that are None."""
        now = int(time.time())
        every = {"iss": self.url, "aud": "wes", "iat": now, "nbf": now, "exp": now + 300} | claims
        return {name: value for name, value in every.items() if value is not None}

    def token(self, *, key=None, kid=True, **claims):
        """A token with these claims beside those of a good one; of another key, or of another key's id (None: of none)."""
        headers = {"kid": self.kid if kid is True else kid} if kid else {}
        return jwt.encode(self.claims(**claims), key or self.key, algorithm="RS256", headers=headers)
