"""The stack with AuthMode jwt, iam and none: who is let in, as whom, and whose runs they see."""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import time

import pytest
import requests
import test_owners
from conftest import BIN, Wes, built_stack
from credentials import Nobody, Signed, SigV4, Token
from cryptography.hazmat.primitives.asymmetric import rsa
from issuer import Issuer
from stack import ACCOUNT
from test_counts import HELLO

FILES = [("hello.cwl", HELLO)]
ADMINS = f"{ACCOUNT}:role/Admins"


# AuthMode jwt


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    with Issuer(tmp_path_factory.mktemp("issuer")) as issuer:
        yield issuer


@pytest.fixture(scope="module")
def by_jwt(request, tmp_path_factory, issuer):
    stack = built_stack(
        request, tmp_path_factory.mktemp("jwt"), AuthMode="jwt", JwtIssuer=issuer.url, JwtAudience="wes,other", OwnerClaim="email",
        AdminGroup="admins", Monitoring="no",
    )
    # By which API Gateway trusts the issuer; on AWS it is publicly trusted ones.
    stack.environment = {"SSL_CERT_FILE": str(issuer.authority)}
    with stack:
        yield stack


def wes_of(stack, token):
    return Wes(stack.url, stack=stack, credentials=Token(token))


def test_a_claim_names_the_owner_and_another_the_groups(by_jwt, issuer):
    def caller(name, **claims):
        return wes_of(by_jwt, issuer.token(sub=f"subject-of-{name}", email=f"{name}@example.org", **claims))

    ada, bob, admin = caller("ada"), caller("bob", groups=["lab", "admins-not"]), caller("root", groups=["lab", "admins"])
    run_id = test_owners.of_its_owner_alone(ada, bob)
    assert by_jwt.item(run_id)["owner"]["S"] == "ada@example.org"
    # The claim counts, and not who else the token is about.
    assert wes_of(by_jwt, issuer.token(sub="another", email="ada@example.org")).state(run_id)
    assert wes_of(by_jwt, issuer.token(sub="ada@example.org", email="eve@example.org")).get(f"/runs/{run_id}").status_code == 404
    # A client that names itself in place of an audience.
    assert wes_of(by_jwt, issuer.token(aud=None, client_id="other", email="ada@example.org")).state(run_id)
    # Administrators.
    assert admin.get(f"/runs/{run_id}").json()["run_id"] == run_id
    assert run_id in admin.get("/runs?owner=ada@example.org").text and run_id not in admin.get("/runs").text
    assert bob.get("/runs?owner=ada@example.org").status_code == 403
    assert issuer.asked[0] == "/.well-known/openid-configuration" and "/keys" in issuer.asked


def forged(token, **claims):
    """With other claims and the same signature."""
    header, body, signature = token.split(".")
    changed = json.loads(base64.urlsafe_b64decode(body + "==")) | claims
    return ".".join([header, base64.urlsafe_b64encode(json.dumps(changed).encode()).rstrip(b"=").decode(), signature])


def test_no_other_token_lets_in(by_jwt, issuer):
    now, stranger = int(time.time()), rsa.generate_private_key(public_exponent=65537, key_size=2048)
    mine = {"email": "ada@example.org"}
    good = issuer.token(**mine)
    assert wes_of(by_jwt, good).get("/runs").status_code == 200
    wrong = {
        "expired": issuer.token(exp=now - 1, **mine),
        "not valid yet": issuer.token(nbf=now + 3600, **mine),
        "issued in the future": issuer.token(iat=now + 3600, **mine),
        "for another audience": issuer.token(aud="somebody-else", **mine),
        "for no audience": issuer.token(aud=None, **mine),
        # An audience that is there counts, and not who asks.
        "for another audience, by a client of ours": issuer.token(aud="somebody-else", client_id="wes", **mine),
        "of another issuer": issuer.token(iss="https://id.example.org", **mine),
        "signed by another key": issuer.token(key=stranger, **mine),
        "of a key that is not published": issuer.token(kid="unknown", **mine),
        "of no key": issuer.token(kid=None, **mine),
        "not signed": crafted(issuer, "none", lambda _: b"", **mine),
        # As a verifier would take it that lets the token choose how it is verified.
        "signed by the public key as a secret": crafted(
            issuer, "HS256", lambda text: hmac.digest(issuer.public_pem(), text, hashlib.sha256), **mine,
        ),
        "changed": forged(good, email="eve@example.org"),
        "cut": good.rsplit(".", 1)[0],
        "no token": "ada-laptop.c2VjcmV0",
    }
    for why, token in wrong.items():
        answer = wes_of(by_jwt, token).get("/runs")
        assert answer.status_code == 401 and answer.json() == {"message": "Unauthorized"}, (why, answer.text)
    assert requests.get(f"{by_jwt.url}/runs", auth=("ada", good), timeout=60).status_code == 401
    assert requests.get(f"{by_jwt.url}/runs", timeout=60).status_code == 401
    assert wes_of(by_jwt, wrong["expired"]).submit("hello.cwl", FILES).status_code == 401
    # A good token that does not say who owns: the service itself refuses it.
    nobody = wes_of(by_jwt, issuer.token(sub="ada")).get("/runs")
    assert nobody.status_code == 401 and nobody.json()["status_code"] == 401 and nobody.headers["WWW-Authenticate"] == "Bearer"


def crafted(issuer, algorithm, sign, **claims):
    """Such as PyJWT does not make."""

    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    header = {"alg": algorithm, "typ": "JWT", "kid": issuer.kid}
    signed = f"{part(json.dumps(header).encode())}.{part(json.dumps(issuer.claims(**claims)).encode())}"
    return f"{signed}.{part(sign(signed.encode()))}"


def test_service_info_wants_a_token_unless_the_operator_says_otherwise(by_jwt, issuer):
    paths = [f"{by_jwt.url}/service-info", f"{by_jwt.url.removesuffix('/ga4gh/wes/v1')}/engine/v1/status"]
    assert [requests.get(path, timeout=60).status_code for path in paths] == [401, 401]
    by_jwt.update(PublicServiceInfo="yes")
    assert [requests.get(path, timeout=60).status_code for path in paths] == [200, 200]
    assert requests.get(f"{by_jwt.url}/runs", timeout=60).status_code == 401
    assert wes_of(by_jwt, issuer.token(email="ada@example.org")).get("/runs").status_code == 200


def test_stepwes_runs_a_workflow_by_a_jwt(by_jwt, issuer, tmp_path):
    (tmp_path / "hello.cwl").write_bytes(HELLO)
    wes = wes_of(by_jwt, issuer.token(email="ada@example.org"))
    assert stepwes(tmp_path, wes.environment(), "run", "hello.cwl", "--outdir", "out", "--json")["state"] == "COMPLETE"
    assert (tmp_path / "out/said").read_text() == "hello\n"


def stepwes(folder, environment, *arguments):
    done = subprocess.run(
        [BIN, *arguments], cwd=folder, capture_output=True, text=True, timeout=300, env={"PATH": os.environ["PATH"], **environment},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# AuthMode iam, then none


@pytest.fixture(scope="module")
def by_iam(request, tmp_path_factory):
    stack = built_stack(
        request, tmp_path_factory.mktemp("iam"), AuthMode="iam", AdminGroup=ADMINS, Monitoring="no", VpcId=None, SubnetIds=None,
    )
    with stack:
        yield stack


def test_without_a_vpc_its_tasks_are_in_one_of_the_stacks_own(by_iam):
    machine = by_iam.states("DescribeStateMachine", stateMachineArn=by_iam.outputs["RunMachineArn"])
    task = json.loads(machine["definition"])["States"]["INITIALIZING, RUNNING"]["Arguments"]
    network = task["NetworkConfiguration"]["AwsvpcConfiguration"]
    assert f"'{by_iam.name('SubnetA')},{by_iam.name('SubnetB')}'" in network["Subnets"]
    assert network["SecurityGroups"] == [by_iam.name("TaskSecurityGroup")] and network["AssignPublicIp"] == "ENABLED"


def assumed(stack, role, session):
    """The key of a session of this role."""
    answer = stack.query("sts", "AssumeRole", "2011-06-15", RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{role}", RoleSessionName=session)
    return tuple(answer.findtext(f".//{{*}}{name}") for name in ("AccessKeyId", "SecretAccessKey", "SessionToken"))


def of_role(stack, role, session):
    return Wes(stack.url, stack=stack, credentials=Signed(SigV4("execute-api", *assumed(stack, role, session))))


@pytest.fixture(scope="module")
def roles(by_iam):
    """Roles that may call the API and nothing else; Silent may not even do that."""
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}]}
    may = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": "*"}]}
    for name in ("Lab", "Other", "Admins", "Silent"):
        by_iam.query("iam", "CreateRole", "2010-05-08", RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
        if name != "Silent":
            by_iam.query("iam", "PutRolePolicy", "2010-05-08", RoleName=name, PolicyName="call", PolicyDocument=json.dumps(may))


def test_the_owner_is_the_user_or_the_role_and_not_its_session(by_iam, roles):
    user = Wes(by_iam.url, stack=by_iam, credentials=by_iam.credentials("ada"))
    lab, same, other = of_role(by_iam, "Lab", "monday"), of_role(by_iam, "Lab", "tuesday"), of_role(by_iam, "Other", "monday")
    run_id = test_owners.of_its_owner_alone(lab, other)
    assert by_iam.item(run_id)["owner"]["S"] == f"{ACCOUNT}:role/Lab"
    assert same.state(run_id) and user.get(f"/runs/{run_id}").status_code == 404
    theirs = test_owners.of_its_owner_alone(user, lab)
    assert by_iam.item(theirs)["owner"]["S"] == f"{ACCOUNT}:user/ada"
    admin = of_role(by_iam, "Admins", "any")
    assert admin.get(f"/runs/{run_id}").status_code == 200
    assert run_id in admin.get("/runs", params={"owner": f"{ACCOUNT}:role/Lab"}).text
    assert other.get("/runs", params={"owner": f"{ACCOUNT}:role/Lab"}).status_code == 403


def test_a_request_that_is_not_signed_as_it_is_sent_is_refused(by_iam, roles):
    key, secret, session = assumed(by_iam, "Lab", "wednesday")

    def answer(path="/runs", **changed):
        given = {"key": key, "secret": secret, "session": session} | changed
        return requests.get(by_iam.url + path, auth=SigV4("execute-api", **given), timeout=60).status_code

    assert answer() == 200
    assert requests.get(f"{by_iam.url}/runs", timeout=60).status_code == 403
    assert requests.get(f"{by_iam.url}/service-info", timeout=60).status_code == 403
    assert answer(secret="another") == answer(session="another") == answer(key="ASIAUNKNOWN") == 403
    # ministack hands this one on, without an identity: the function refuses what API Gateway does not answer itself.
    assert requests.get(f"{by_iam.url}/runs", headers={"Authorization": "Bearer x.y"}, timeout=60).status_code in (401, 403)
    # Signed well, and without the right.
    assert of_role(by_iam, "Silent", "any").get("/runs").status_code == 403


def test_stepwes_runs_a_workflow_by_signatures(by_iam, roles, tmp_path):
    (tmp_path / "hello.cwl").write_bytes(HELLO)
    key, secret, session = assumed(by_iam, "Lab", "cli")
    aws = {
        "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": session, "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "STEPWES_URL": by_iam.url, "HOME": str(tmp_path),
    }
    ended = stepwes(tmp_path, aws, "run", "hello.cwl", "--aws", "--outdir", "out", "--json")
    assert ended["state"] == "COMPLETE" and (tmp_path / "out/said").read_text() == "hello\n"
    assert by_iam.item(ended["run_id"])["owner"]["S"] == f"{ACCOUNT}:role/Lab"


def test_after_an_update_to_none_everybody_is_anonymous(by_iam, roles):
    before = of_role(by_iam, "Lab", "last")
    run_id = before.run("hello.cwl", FILES)
    before.complete(run_id)
    by_iam.update(AuthMode="none", AllowAnonymous="yes", AdminGroup='""')
    anybody = Wes(by_iam.url, stack=by_iam, credentials=Nobody())
    own = anybody.run("hello.cwl", FILES)
    anybody.complete(own)
    assert by_iam.item(own)["owner"]["S"] == "anonymous"
    # Runs of before are their owners', who cannot be told any more.
    assert anybody.get(f"/runs/{run_id}").status_code == 404 and of_role(by_iam, "Lab", "later").get(f"/runs/{run_id}").status_code == 404
    assert [run["run_id"] for run in anybody.get("/runs").json()["runs"]] == [own]
