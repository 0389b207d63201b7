"""The deployed stack on this machine: `sam deploy` of the built template to an AWS that is played by ministack.

    python tests/cloud/stack.py [FOLDER]

keeps one up until it is interrupted, for trying things by hand.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import uuid
import xml.etree.ElementTree

import requests
import yaml
from sessions import kill_session

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

from credentials import Nobody, Signed, SigV4, Token  # noqa: E402
from waiting import answers, free_ports, until  # noqa: E402

REGION, ACCOUNT = "us-east-1", "123456789012"
# The account's root user, to ministack: its policies are nobody's.
ROOT_KEY = (ACCOUNT, "test")
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/stepwes-engine:test"
STACK = "stepwes-test"


class Stack:
    """One emulator with one stack in it, in a folder of its own."""

    def __init__(self, folder, build=ROOT / ".aws-sam/build", engine=ROOT / "target/debug/stepwes-engine", **parameters):
        self.folder, self.build, self.engine = pathlib.Path(folder), pathlib.Path(build), pathlib.Path(engine)
        self.parameters = parameters
        # Of the emulator, besides.
        self.environment = {}
        self.port, self.api_port = free_ports(2)
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.url = f"http://127.0.0.1:{self.api_port}/ga4gh/wes/v1"
        self.emulator, self.outputs, self.callers = None, {}, {}

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_):
        self.stop()

    def missing(self):
        """What must be there first, and how it comes there."""
        return [
            f"{path} is missing: {made_by}" for path, made_by in [
                (self.build / "template.yaml", "`make package` builds it"),
                (self.engine, "`make build` builds it"),
                (ROOT / ".venv-cloud/bin/python", "`make .venv-cloud` makes it"),
                (ROOT / ".venv-package/bin/sam", "`make .venv-package` makes it"),
            ] if not path.exists()
        ]

    def outdated(self):
        """The sources that are newer than what was built of them."""
        built = (self.build / "template.yaml").stat().st_mtime
        folders = [ROOT / name for name in ("functions", "crates/core/src", "crates/store/src", "crates/cloud/src", "infra")]
        sources = [ROOT / "template.yaml", ROOT / "Cargo.lock"]
        sources += [path for folder in folders for path in folder.rglob("*") if path.suffix in (".rs", ".json", ".toml")]
        return [str(path.relative_to(ROOT)) for path in sources if path.stat().st_mtime > built and "tests" not in path.parts]

    def start(self):
        assert not self.missing(), "; ".join(self.missing())
        for name in ("containers", "tmp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        environment = self.aws_environment() | {
            "GATEWAY_PORT": str(self.port), "API_PORT": str(self.api_port), "TMPDIR": str(self.folder / "tmp"),
            "PYTHONPATH": f"{HERE / 'emulator'}:{HERE}", "PYTHONDONTWRITEBYTECODE": "1",
            "MINISTACK_ACCOUNT_ID": ACCOUNT, "MINISTACK_REGION": REGION,
            # Waits and retries take a twentieth of their time.
            "SFN_WAIT_SCALE": "0.05",
            "FAULTS": str(self.folder / "faults.json"),
            "CONTAINERS": str(self.folder / "containers"),
            "CONTAINER_IMAGES": json.dumps({IMAGE: [str(self.engine)]}),
            # The emulator's names of buckets do not resolve; on AWS they do.
            "CONTAINER_ENVIRONMENT": json.dumps({"STEPWES_S3_PATH_STYLE": "true"}),
            "STEPWES_S3_PATH_STYLE": "true",
        } | self.environment
        with (self.folder / "emulator.log").open("ab") as log:
            # A session of its own, so that the functions' processes are found again.
            self.emulator = subprocess.Popen(
                [ROOT / ".venv-cloud/bin/python", HERE / "emulator/serve.py"], env=environment, cwd=self.folder,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )
        until(
            lambda: answers(f"{self.endpoint}/_ministack/health") or self.emulator.poll() is not None,
            f"the emulator answers; {self.folder / 'emulator.log'} is its log", 60,
        )
        assert self.emulator.poll() is None, (self.folder / "emulator.log").read_text()
        self.deploy()
        return self

    def aws_environment(self):
        """What any AWS client needs to find this AWS, and what keeps it from finding another."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "STEPWES_", "SAM_"))}
        # The programs beside this Python are what the engine image has on its PATH.
        return kept | {
            "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": ROOT_KEY[0], "AWS_SECRET_ACCESS_KEY": ROOT_KEY[1],
            "AWS_DEFAULT_REGION": REGION, "AWS_REGION": REGION, "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
        }

    def deploy(self):
        """The command of the README, and nothing by its side. A parameter that is None is left to its default."""
        subnets = self.query("ec2", "DescribeSubnets", version="2016-11-15")
        parameters = {
            "VpcId": subnets.find(".//{*}vpcId").text,
            "SubnetIds": ",".join(each.text for each in subnets.iterfind(".//{*}subnetId")),
            # The tests' own servers of workflows and inputs are on this machine.
            "EngineImage": IMAGE, "LogFilter": "info,stepwes=debug", "AllowedHosts": "127.0.0.0/8", **self.parameters,
        }
        done = subprocess.run(
            [ROOT / ".venv-package/bin/sam", "deploy", "--config-file", ROOT / "samconfig.toml",
             "--template-file", self.build / "template.yaml", "--stack-name", STACK, "--no-confirm-changeset", "--no-progressbar",
             "--parameter-overrides", *(f"{name}={value}" for name, value in parameters.items() if value is not None)],
            cwd=ROOT, env=self.aws_environment() | {"SAM_CLI_TELEMETRY": "0"}, capture_output=True, text=True, timeout=300,
        )
        (self.folder / "deploy.log").write_text(done.stdout + done.stderr)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        described = self.query("cloudformation", "DescribeStacks", StackName=STACK, version="2010-05-15")
        self.outputs = {
            each.find("{*}OutputKey").text: each.find("{*}OutputValue").text for each in described.iterfind(".//{*}Outputs/{*}member")
        }

    def update(self, **parameters):
        """Deploys the stack again, with some other parameters."""
        self.parameters |= parameters
        self.callers = {}
        self.deploy()

    @property
    def mode(self):
        """The stack's AuthMode."""
        known = yaml.safe_load((self.build / "template.yaml").read_text())["Parameters"]
        return self.parameters.get("AuthMode") or known["AuthMode"]["Default"]

    def credentials(self, name="tester"):
        """Those of a caller of this name, as AuthMode asks for them: a token, or the key of an IAM user who may call the
        API and nothing else."""
        if name not in self.callers:
            assert self.mode in ("token", "iam", "none"), f"nobody issues tokens here for AuthMode {self.mode}"
            self.callers[name] = {"token": self.new_token, "iam": self.new_user, "none": lambda _: Nobody()}[self.mode](name)
        return self.callers[name]

    def new_token(self, name):
        made = subprocess.run(
            [self.engine.with_name("stepwes"), "token", "create", name, "--table", self.outputs["RunTableName"], "--json"],
            env=self.aws_environment(), capture_output=True, text=True, timeout=60,
        )
        assert made.returncode == 0, made.stderr
        return Token(json.loads(made.stdout)["token"])

    def new_user(self, name):
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": "*"}]}
        self.query("iam", "CreateUser", "2010-05-08", UserName=name)
        self.query("iam", "PutUserPolicy", "2010-05-08", UserName=name, PolicyName="call", PolicyDocument=json.dumps(policy))
        key = self.query("iam", "CreateAccessKey", "2010-05-08", UserName=name)
        return Signed(SigV4("execute-api", key.findtext(".//{*}AccessKeyId"), key.findtext(".//{*}SecretAccessKey")))

    def query(self, service, action, version, **parameters):
        """A call of an AWS API that takes forms and answers XML."""
        form = {"Action": action, "Version": version, **parameters}
        answer = requests.post(self.endpoint, data=form, auth=SigV4(service, *ROOT_KEY), timeout=60)
        assert answer.ok, answer.text
        return xml.etree.ElementTree.fromstring(answer.content)

    def call(self, service, target, **body):
        """A call of an AWS API that speaks JSON."""
        answer = requests.post(
            self.endpoint, json=body, auth=SigV4(service, *ROOT_KEY), timeout=60,
            headers={"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1"},
        )
        assert answer.ok, answer.text
        return answer.json()

    def states(self, action, **body):
        return self.call("states", f"AWSStepFunctions.{action}", **body)

    def ecs(self, action, **body):
        return self.call("ecs", f"AmazonEC2ContainerServiceV20141113.{action}", cluster=self.outputs["ClusterName"], **body)

    def dynamodb(self, action, **body):
        return self.call("dynamodb", f"DynamoDB_20120810.{action}", TableName=self.outputs["RunTableName"], **body)

    def objects(self, prefix):
        """The keys in the bucket that begin so."""
        answer = requests.get(
            f"{self.endpoint}/{self.outputs['RunsBucketName']}", params={"list-type": "2", "prefix": prefix},
            auth=SigV4("s3", *ROOT_KEY), timeout=60,
        )
        assert answer.ok, answer.text
        return [each.text for each in xml.etree.ElementTree.fromstring(answer.content).iterfind(".//{*}Key")]

    def item(self, run_id):
        """A run's item in the table."""
        return self.dynamodb("GetItem", Key={"PK": {"S": f"RUN#{run_id}"}, "SK": {"S": "RUN"}}, ConsistentRead=True)["Item"]

    def name(self, resource):
        """What a resource of the template is called."""
        found = self.query(
            "cloudformation", "DescribeStackResources", StackName=STACK, LogicalResourceId=resource, version="2010-05-15",
        )
        (member,) = [each for each in found.iterfind(".//{*}member") if each.findtext("{*}LogicalResourceId") == resource]
        return member.findtext("{*}PhysicalResourceId")

    def configuration(self, function):
        """A function's configuration, by its logical id."""
        answer = requests.get(
            f"{self.endpoint}/2015-03-31/functions/{self.name(function)}/configuration",
            auth=SigV4("lambda", *ROOT_KEY), timeout=60,
        )
        assert answer.ok, answer.text
        return answer.json()

    def invoke(self, function, event):
        """Calls a function by its logical id; gives its answer and whether that is an error."""
        answer = requests.post(
            f"{self.endpoint}/2015-03-31/functions/{self.name(function)}/invocations", json=event, auth=SigV4("lambda", *ROOT_KEY), timeout=900,
        )
        assert answer.ok, answer.text
        return answer.json(), "X-Amz-Function-Error" in answer.headers

    def calls(self):
        """How often each role has made each call so far."""
        return requests.get(f"{self.endpoint}/_calls", timeout=60).json()

    def units(self):
        """How many read and write units of the table each role's calls have taken so far."""
        return requests.get(f"{self.endpoint}/_units", timeout=60).json()

    def entered(self, run_id):
        """The states that a run's execution has entered: state transitions, but for retries."""
        execution = self.outputs["RunMachineArn"].replace(":stateMachine:", ":execution:") + f":{run_id}"
        events = self.states("GetExecutionHistory", executionArn=execution, maxResults=1000)["events"]
        return [event["stateEnteredEventDetails"]["name"] for event in events if "stateEnteredEventDetails" in event]

    def faults(self, **faults):
        """What goes wrong from now on: `run_task_failures`, `run_task_error`, `image_is_missing`; `functions` (what the next invocations
        of each meet, emulator/reading/functions.py). Nothing, when none is named."""
        # As a whole: it may be read at any moment.
        written = self.folder / "faults.new"
        written.write_text(json.dumps({"id": uuid.uuid4().hex, **faults}))
        written.rename(self.folder / "faults.json")

    def invoked(self, function=None):
        """Every invocation so far, of a function or of all: what it met, and how long it took in milliseconds."""
        every = requests.get(f"{self.endpoint}/_invocations", timeout=60).json()
        return [each for each in every if function in (None, each["function"])]

    def stop(self):
        """Ends every process that this stack has started, and waits until they are gone."""
        if self.emulator is not None:
            self.emulator.send_signal(signal.SIGTERM)
            try:
                self.emulator.wait(20)
            except subprocess.TimeoutExpired:
                self.emulator.kill()
                self.emulator.wait()
            kill_session(self.emulator.pid)
        for record in (self.folder / "containers").glob("*/pid"):
            kill_session(int(record.read_text()))


if __name__ == "__main__":
    import tempfile

    with Stack(sys.argv[1] if sys.argv[1:] else tempfile.mkdtemp(prefix="stepwes-stack-")) as stack:
        print(json.dumps({"url": stack.url, "endpoint": stack.endpoint, "folder": str(stack.folder), **stack.outputs}, indent=2), flush=True)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
        signal.sigwait([signal.SIGINT, signal.SIGTERM])
