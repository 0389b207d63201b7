#!/usr/bin/env python3
"""Holds template.yaml against the code: what the code reads, calls and serves is in the template, and nothing else is.

Environment variables, AWS calls by role, routes, the state machine's substitutions and resources, the fields of state
changes, the metrics that alarms look at, what instances have for the engine task, and which parameters are refused. Expectations are read from the Rust
sources (rust_source.py), never written down twice.
"""

import json
import re
import sys

import instances
from rust_source import ROOT, Sources, code
from stack import GIVEN, NETWORK, PSEUDO, VARIANTS, Contradiction, Stack, as_list, translated

# Variables that code reads and AWS has no use for, each with the reason.
NOT_IN_AWS = {
    "STEPWES_S3_PATH_STYLE": "for endpoints that are not AWS's",
    "STEPWES_PRESIGN_URL": "for callers who reach S3 by another endpoint than the functions",
    "STEPWES_MAX_REQUEST_BYTES": "its default is what Lambda takes",
    "STEPWES_WORK_LINK": "for hosts that clean up after tasks that were killed",
    "STEPWES_EXIT_FILE": "for hosts that can outlive who started the task",
    "STEPWES_STOP_GRACE_SECONDS": "its default fits the container's StopTimeout",
    "STEPWES_FILE_ROOTS": "for hosts whose files are the callers' own",
    "STEPWES_SANDBOX": "for hosts that let a task make namespaces: Fargate does not, and a container runtime is another way",
    "STEPWES_SANDBOX_HIDES": "what a sandbox is not to show",
    "STEPWES_PATIENCE_SECONDS": "its default fits services that are never away for long",
}

# Of every function: its own log, and tracing.
EVERY_FUNCTION = {"logs:CreateLogStream", "logs:PutLogEvents", "xray:PutTelemetryRecords", "xray:PutTraceSegments"}
# What Lambda and not the code calls: a failed invocation's event goes to the queue.
BY_LAMBDA = {name: {"sqs:SendMessage"} for name in ("reconcile", "submit")}

# What Step Functions calls for a resource of the machine
# (https://docs.aws.amazon.com/step-functions/latest/dg/service-integration-iam-templates.html).
INTEGRATIONS = {
    "lambda:invoke": {"lambda:InvokeFunction"},
    "ecs:runTask.sync": {
        "ecs:RunTask", "ecs:StopTask", "ecs:DescribeTasks", "events:PutTargets", "events:PutRule", "events:DescribeRule",
        "iam:PassRole",
    },
}
# For tags, for its log, for tracing.
MACHINE_BESIDE = {
    "ecs:TagResource", "logs:CreateLogDelivery", "logs:DeleteLogDelivery", "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies", "logs:GetLogDelivery", "logs:ListLogDeliveries", "logs:PutResourcePolicy",
    "logs:UpdateLogDelivery", "xray:GetSamplingRules", "xray:GetSamplingTargets", "xray:PutTelemetryRecords",
    "xray:PutTraceSegments",
}

# Parameters that must be refused, and what the refusal names.
REFUSED = [
    ({"AuthMode": "none"}, "AllowAnonymous=yes"),
    ({"AllowAnonymous": "yes"}, "AuthMode none alone"),
    ({"AuthMode": "open"}, "AuthMode"),
    ({"AuthMode": "jwt", "JwtAudience": "wes"}, "JwtIssuer"),
    ({"AuthMode": "jwt", "JwtIssuer": "https://id.example.org"}, "JwtAudience"),
    ({"JwtIssuer": "https://id.example.org"}, "AuthMode jwt alone"),
    ({"AuthMode": "jwt", "JwtIssuer": "http://id.example.org", "JwtAudience": "wes"}, "JwtIssuer"),
    ({"AuthMode": "none", "AllowAnonymous": "yes", "AdminGroup": "admins"}, "AdminGroup"),
    ({"AdminGroup": "a,b"}, "AdminGroup"),
    ({"SubnetIds": "subnet-0123456789abcdef0"}, "VpcId"),
    ({"SecurityGroupId": "sg-0123456789abcdef0"}, "VpcId"),
    ({"VpcId": "vpc-0123456789abcdef0"}, "SubnetIds"),
    ({"VpcId": "vpc-1"}, "VpcId"),
    (NETWORK | {"SubnetIds": "subnet-0123456789abcdef0,"}, "SubnetIds"),
    ({"AssignPublicIp": "DISABLED"}, "AssignPublicIp"),
    ({"Compute": "ec2"}, "Compute ec2"),
    (NETWORK | {"Compute": "ec2", "AssignPublicIp": "ENABLED"}, "AssignPublicIp=DISABLED"),
    (NETWORK | {"Compute": "ec2", "InstanceType": "large"}, "InstanceType"),
    ({"TaskCpu": "300"}, "TaskCpu"),
    ({"TaskCpu": "256", "TaskMemory": "4096"}, "256 CPU units"),
    ({"TaskCpu": "1024", "TaskMemory": "9216"}, "1024 CPU units"),
    ({"TaskCpu": "8192", "TaskMemory": "16385"}, "8192 CPU units"),
    ({"TaskCpu": "16384", "TaskMemory": "16384"}, "16384 CPU units"),
    ({"TaskDisk": "201"}, "TaskDisk"),
    ({"MaxTaskCpu": "255"}, "MaxTaskCpu"),
    ({"MaxTaskMemory": "99"}, "MaxTaskMemory"),
    ({"MaxTaskDisk": "201"}, "MaxTaskDisk"),
    ({"InputBuckets": "s3://data"}, "InputBuckets"),
    ({"InputBuckets": ",".join(["abc"] * 9)}, "InputBuckets"),
    ({"InputBuckets": ",".join(["a" * 63] * 3)}, "InputBuckets"),
    ({"OutputBuckets": "s3://data"}, "OutputBuckets"),
    ({"DestBucketBase": "lab-results", "OutputBuckets": "lab-results"}, "DestBucketBase"),
    ({"DestBucketBase": "s3://lab-results/x"}, "OutputBuckets"),
    ({"TriggerBuckets": "s3://data"}, "TriggerBuckets"),
    ({"TriggerBuckets": ",".join(["abc"] * 17)}, "TriggerBuckets"),
    ({"RejectedDays": "0"}, "RejectedDays"),
    ({"RunFiles": "remove"}, "needs RunDays"),
    ({"UrlSchemes": "http,file"}, "UrlSchemes"),
    ({"MaxAttempts": "4"}, "MaxAttempts"),
    ({"RunTimeoutSeconds": "864001"}, "RunTimeoutSeconds"),
    ({"ReconcileSchedule": "rate(2 hours)"}, "ReconcileSchedule"),
    ({"StateChanges": "no", "StateChangeTopic": "yes"}, "StateChanges=yes"),
    ({"WebhookUrl": "https://example.org"}, "WebhookSecret"),
    ({"WebhookUrl": "http://example.org", "WebhookSecret": "x"}, "WebhookUrl"),
    ({"Monitoring": "no", "AlarmEmail": "ops@example.org"}, "Monitoring=yes"),
    ({"Metrics": "none"}, "Monitoring=yes needs metrics"),
    ({"Metrics": "some"}, "Metrics"),
    ({"Engines": "cwltool"}, "Engines"),
    ({"PublicUrl": "https://wes.example.org/"}, "PublicUrl"),
    ({"EngineImage": ""}, "EngineImage"),
    ({"Nothing": "x"}, "Nothing"),
]
TAKEN = [
    {"TaskCpu": "256", "TaskMemory": "512"},
    {"TaskCpu": "16384", "TaskMemory": "122880"},
    {"InputBuckets": ",".join(f"bucket-{number}-of-eight" for number in range(8))},
    {"TriggerBuckets": ",".join(f"bucket-{number}-of-sixteen" for number in range(16))},
    {"ReconcileSchedule": "rate(1 hour)"},
    {"Metrics": "none", "Monitoring": "no"},
    {"Metrics": "all"},
    {"AuthMode": "iam", "AdminGroup": "111122223333:role/Admins"},
    NETWORK | {"AssignPublicIp": "ENABLED"},
    NETWORK | {"Compute": "ec2", "TaskCpu": "1024", "TaskMemory": "15000"},
]


def both(what, code_has, template_has):
    for name in sorted(code_has - template_has):
        yield f"{what}: the code needs {name}, and the template does not have it"
    for name in sorted(template_has - code_has):
        yield f"{what}: the template has {name}, and the code has no use for it"


def functions(stack):
    """The Lambda functions by their binary's name."""
    return {name.removesuffix("Function").lower(): item for name, item in stack.of_type("AWS::Lambda::Function").items()}


def variables(stack, sources):
    constants = sources.constants()
    deployed = functions(stack)
    there = set(sources.lambdas())
    not_asked = set() if stack.conditions["TokenAuth"] else {"authorize"}
    yield from both("functions", there - not_asked, set(deployed))
    reads = {name: sources.variables(name, constants) for name in there}
    used = set().union(*reads.values())
    for name in there & set(deployed):
        has = set(deployed[name].get("Environment", {}).get("Variables", {}))
        yield from both(f"{name}'s environment", reads[name] - set(NOT_IN_AWS), has)
        binary = stack.template["Resources"][f"{name.capitalize()}Function"]["Metadata"]["BuildProperties"]["Binary"]
        if binary != name:
            yield f"{name.capitalize()}Function runs the binary {binary}"
    used |= (yield from engine_variables(stack, sources, constants))
    for name in sorted(NOT_IN_AWS.keys() - used):
        yield f"no code reads {name} any more: take it out of {__file__.rsplit('/', 1)[-1]}"


def engine_variables(stack, sources, constants):
    reads = sources.variables("engine", constants)
    container, = next(iter(stack.of_type("AWS::ECS::TaskDefinition").values()))["ContainerDefinitions"]
    has = {item["Name"] for item in container["Environment"] + container.get("Secrets", [])}
    # The SDK's own.
    assert "AWS_REGION" in has
    machine = json.loads((ROOT / "infra/run.asl.json").read_text())
    overrides = machine["States"]["INITIALIZING, RUNNING"]["Arguments"]["Overrides"]
    name, *environment = re.findall(r"'Name': '(\w+)'", overrides)
    if name != container["Name"]:
        yield "the state machine overrides another container than the task definition's"
    has |= set(environment)
    # Only where containers run beside the engine's.
    on_instances = {"STEPWES_WORK_DIR"} if stack.conditions["OnInstances"] else set()
    optional = {"STEPWES_WORK_DIR"} - on_instances
    # A secret, and no plain variable.
    if "STEPWES_DRS_TOKENS" in {item["Name"] for item in container["Environment"]}:
        yield "the tokens of DRS servers are shown to whoever may describe tasks"
    optional |= set() if stack.conditions["HasDrsTokens"] else {"STEPWES_DRS_TOKENS"}
    yield from both("the engine task's environment", reads - set(NOT_IN_AWS) - optional, has - {"AWS_REGION"})
    return reads


def image(stack):
    """The engine image is what the task definition takes it for, and has the engines that the parameter names."""
    text = (ROOT / "infra/engine/Dockerfile").read_text()
    container, = next(iter(stack.of_type("AWS::ECS::TaskDefinition").values()))["ContainerDefinitions"]
    user = re.search(r"(?m)^USER (\S+)$", text[text.rindex("\nFROM "):])[1]
    if container.get("User", user) != user:
        yield f"the task runs as {container['User']}, and the image is made for {user}"
    owner, group = user.split(":")
    for mount in container.get("MountPoints", ()):
        if mount["SourceVolume"] == "work" and f"--owner {owner} --group {group} {mount['ContainerPath']}\n" not in text:
            yield f"the image has no {mount['ContainerPath']} of {user}'s"
    made = re.search(r"(?m)^ENTRYPOINT (.+)$", text)[1]
    if json.loads(made) != ["/usr/local/bin/stepwes-engine"] or {"EntryPoint", "Command"} & set(container):
        yield f"process 1 of the task is not stepwes-engine, but {made}"
    if container.get("LinuxParameters", {}).get("InitProcessEnabled"):
        yield "an init process would show the attempt's token to workflows"
    locks = "".join(path.read_text() for path in (ROOT / "requirements").glob("engine-*.txt"))
    for engine in json.loads(stack.parameters["Engines"]):
        for version in engine["versions"]:
            if not re.search(rf"(?m)^{re.escape(engine['name'])}=={re.escape(version)} ", locks):
                yield f"the image's lock files have no {engine['name']} {version}"


def permissions(stack, sources):
    """What a role allows against what its code calls."""
    deployed = functions(stack)
    for name in set(sources.lambdas()) & set(deployed):
        role = f"{name.capitalize()}Role"
        if not deployed[name]["Role"].endswith(f"/{stack._name(role)}"):
            yield f"{name} does not run as {role}"
        needs = sources.actions(name) | EVERY_FUNCTION | BY_LAMBDA.get(name, set())
        if name == "reconcile" and not stack.conditions["RemovesFiles"]:
            needs -= {"s3:DeleteObject"}
        yield from both(role, needs, allowed(stack, role))
    for name in deployed:
        yield from denied_tokens(stack, f"{name.capitalize()}Role", name)
    # The task role reports; files are the data role's, narrowed down by report's session policy.
    task = sources.actions("engine")
    files = {action for action in task if action.startswith("s3:")}
    yield from both("TaskRole", task - files, allowed(stack, "TaskRole"))
    yield from both("DataRole", files, allowed(stack, "DataRole"))
    policy = code(ROOT / "functions/report/src/policy.rs")
    yield from both("report's session policy", files, set(re.findall(r'"(s3:[A-Z]\w+)"', policy)))
    yield from machine(stack)
    yield from stream(stack)


def allowed(stack, role):
    return {
        action for statement in stack.statements(role) if statement["Effect"] == "Allow"
        for action in as_list(statement["Action"])
    }


def denied_tokens(stack, role, name):
    """Only authorize reads callers' tokens; whoever else reaches the table is denied their key."""
    table = {action for action in allowed(stack, role) if action.startswith("dynamodb:")}
    key = {"dynamodb:LeadingKeys": ["TOKENS"]}
    if name == "authorize":
        for statement in stack.statements(role):
            if "dynamodb:GetItem" in as_list(statement["Action"]):
                if statement.get("Condition") != {"ForAllValues:StringEquals": key}:
                    yield f"{role} reads more of the table than callers' tokens"
        return
    denied = set()
    for statement in stack.statements(role):
        if statement["Effect"] == "Deny" and statement["Condition"] == {"ForAnyValue:StringEquals": key}:
            denied |= set(as_list(statement["Action"]))
    if missing := table - denied:
        yield f"{role} may {sorted(missing)} callers' tokens"


def machine(stack):
    text = (ROOT / "infra/run.asl.json").read_text()
    resources = set(re.findall(r'"arn:\$\{Partition\}:states:::([^"]+)"', text))
    needs = set(MACHINE_BESIDE).union(*(INTEGRATIONS[resource] for resource in resources))
    yield from both("RunMachineRole", needs, allowed(stack, "RunMachineRole"))
    resource = stack.template["Resources"]["RunMachine"]["Properties"]
    substitutions = set(resource["DefinitionSubstitutions"])
    yield from both("the state machine's substitutions", set(re.findall(r"\$\{(\w+)\}", text)), substitutions)


def events_in(stack):
    """The prefixes of the runs bucket that submit is told of, may read and may write are those that the code names."""
    prefixes = dict(re.findall(r'pub const (\w+): &str = "(\w+/)"', code(ROOT / "crates/core/src/keys.rs")))
    rules = stack.of_type("AWS::Events::Rule")
    told = [each["prefix"] for each in rules["DroppedRule"]["EventPattern"]["detail"]["object"]["key"]]
    yield from both("what is dropped", {prefixes["SUBMIT"], prefixes["TRIGGERS"]}, set(told))
    buckets = stack.parameters["TriggerBuckets"]
    watched = rules["TriggerRule"]["EventPattern"]["detail"]["bucket"]["name"] if buckets else []
    yield from both("what triggers look at", set(filter(None, buckets.split(","))), set(watched))
    read, written, deleted = set(), set(), set()
    for statement in stack.statements("SubmitRole"):
        below = {resource.split(":::", 1)[1] for resource in as_list(statement["Resource"]) if ":s3:::" in resource}
        read |= below if "s3:GetObject" in as_list(statement["Action"]) else set()
        written |= below if "s3:PutObject" in as_list(statement["Action"]) else set()
        deleted |= below if "s3:DeleteObject" in as_list(statement["Action"]) else set()
    runs = stack._name("RunsBucket")
    expected = {f"{runs}/{prefixes[name]}*" for name in ("SUBMIT", "TRIGGERS")} | {f"{name}/*" for name in watched}
    # Of the run that another one goes on from.
    expected |= {f"{runs}/requests/*", f"{runs}/work/*/state/*"}
    yield from both("what submit reads", expected, read)
    expected = {f"{runs}/requests/*", f"{runs}/{prefixes['REJECTED']}*"}
    yield from both("what submit writes", expected, written)
    yield from both("what submit deletes", expected, deleted)
    keys = code(ROOT / "crates/core/src/keys.rs")
    of_run = re.findall(r"(\w+)\(run\)", keys[keys.index("pub fn of_run"):].split("\n}\n")[0])
    classes = {re.search(rf'fn {name}\(.*?format!\("(\w+)/', keys, re.S)[1] for name in of_run}
    for role in ["CancelRole"] + ["ReconcileRole"] * stack.conditions["RemovesFiles"]:
        erased = {
            resource.split(":::", 1)[1] for statement in stack.statements(role)
            if "s3:DeleteObject" in as_list(statement["Action"]) for resource in as_list(statement["Resource"])
        }
        yield from both(f"what {role} deletes of a run", {f"{runs}/{name}/*" for name in classes}, erased)
    bucket, = stack.of_type("AWS::S3::Bucket").values()
    kept = {rule.get("Prefix") for rule in bucket["LifecycleConfiguration"]["Rules"]}
    if prefixes["REJECTED"] not in kept:
        yield "reports on what was refused are kept for ever"


def stream(stack):
    """Whoever reads the table's stream reads attempts' tokens."""
    readers = {
        role for role, _, document in stack.policies() for statement in document["Statement"]
        for resource in as_list(statement["Resource"])
        if statement["Effect"] == "Allow" and any(action.startswith("dynamodb:") for action in as_list(statement["Action"]))
        and ("/stream/" in resource or resource == "*" or resource.endswith("*"))
    }
    expected = {"StateChangePipeRole"} if stack.conditions["Publishes"] else set()
    if readers != expected:
        yield f"the table's stream can be read by {sorted(readers)}, and should be by {sorted(expected)}"


def routes(stack, sources):
    text = code(ROOT / "crates/cloud/src/http/routes.rs")
    paths = dict(re.findall(r'pub const (\w+): &str = "([^"]+)"', text))
    groups = {name: value.split(", ") for name, value in re.findall(r'const (\w+): &str = "([A-Z, ]+)"', text)}
    served = {}
    for name in sources.lambdas():
        for route, method in re.findall(r"\.route\(routes::(\w+), (get|post|delete)\(", sources.text[name]):
            served[f"{method.upper()} " + re.sub(r"\{\*(\w+)\}", r"{\1+}", paths[route])] = name
    table = text[text.index("const TABLE"):]
    table = re.findall(r'\((\w+), (?:"([A-Z, ]+)"|(\w+))\)', table[:table.index("];")])
    methods = {
        (paths[name], method) for name, given, group in table
        for method in (given.split(", ") if given else groups[group]) if method != "HEAD"
    }
    if len(methods) != len(served):
        yield f"routes.rs has {len(methods)} methods of paths, the functions serve {len(served)}"
    served["$default"] = "status"
    integrations = {name: item["IntegrationUri"] for name, item in stack.of_type("AWS::ApiGatewayV2::Integration").items()}
    deployed = {}
    for name, item in stack.of_type("AWS::ApiGatewayV2::Route").items():
        target, = [key for key in integrations if item["Target"] == f"integrations/{stack._name(key)}"]
        deployed[item["RouteKey"]] = re.search(r"function:stepwes-(\w+)function", integrations[target])[1]
        yield from authorization(stack, item)
    yield from both("routes", {f"{key} to {name}" for key, name in served.items()}, {f"{key} to {name}" for key, name in deployed.items()})


# What is answered to callers who do not say who they are, if the operator says so.
PUBLIC = {"GET /", "GET /engine/v1/status", "GET /ga4gh/wes/v1/service-info"}


def authorization(stack, route):
    mode = stack.parameters["AuthMode"]
    expected = {"token": "CUSTOM", "jwt": "JWT", "iam": "AWS_IAM", "none": "NONE"}[mode]
    if route["RouteKey"] in PUBLIC and stack.parameters["PublicServiceInfo"] == "yes":
        expected = "NONE"
    if route["AuthorizationType"] != expected:
        yield f"{route['RouteKey']} asks for {route['AuthorizationType']}, not for {expected}"
    authorizer = {"CUSTOM": "TokenAuthorizer", "JWT": "JwtAuthorizer"}.get(expected)
    if route.get("AuthorizerId") != (authorizer and stack._name(authorizer)):
        yield f"{route['RouteKey']} has the authorizer {route.get('AuthorizerId')}"


# DynamoDB's types by what encodes an attribute.
ENCODED = {"text(": "S", "number(": "N", "tags_text(": "S", "AttributeValue::Bool(": "BOOL"}


def state_changes(stack):
    """The pipe names what event items hold, by its type; what an item may lack is quoted, and nothing else is."""
    names = dict(re.findall(r'pub const (\w+): &str = "([^"]+)"', code(ROOT / "crates/store/src/schema.rs")))
    body = code(ROOT / "crates/store/src/codec.rs")
    body = body[body.index("fn encode_event"):]
    body = body[:body.index("\n}\n")]
    items, optional = {}, set()
    for name, value in re.findall(r"set\(at::(\w+), (.*)\);", body):
        kind = next(kind for call, kind in ENCODED.items() if call in value)
        items[names[name]] = kind
        if not value.startswith("Some("):
            optional.add(names[name])
    pipe, = stack.of_type("AWS::Pipes::Pipe").values()
    template = pipe["TargetParameters"]["InputTemplate"]
    used = re.findall(r'(")?<\$\.dynamodb\.NewImage\.(\w+)\.(\w+)>(")?', template)
    for opened, name, kind, closed in used:
        if items.get(name) != kind:
            yield f"the pipe reads {name}.{kind}; event items have {items.get(name)}"
        if (name in optional) != bool(opened and closed) and not re.search(rf"/<[^>]*{name}", template):
            yield f"the pipe {'must' if name in optional else 'must not'} quote {name}"
    missing = set(items) - {name for _, name, _, _ in used} - {names["CAUSE"], names["CHANGE_ID"]}
    if missing:
        yield f"the pipe leaves out {sorted(missing)}"
    source = code(ROOT / "crates/core/src/state_change.rs")
    fields = re.findall(r"pub (\w+): (String|bool),", source[source.index("pub struct StateChange"):])
    published = json.loads(re.sub(r'(?<!["/])<[^>]+>', "0", template))
    if [name for name, _ in fields] != list(published):
        yield f"the pipe publishes {list(published)}, StateChange has {[name for name, _ in fields]}"
    told = pipe["TargetParameters"]["EventBridgeEventBusParameters"]
    for name, value in (("SOURCE", told["Source"]), ("DETAIL_TYPE", told["DetailType"])):
        if f'{name}: &str = "{value}"' not in source:
            yield f"the pipe says {value}, which is not StateChange's {name}"
    prefix = json.loads(pipe["SourceParameters"]["FilterCriteria"]["Filters"][0]["Pattern"])
    if prefix != {"eventName": ["INSERT"], "dynamodb": {"Keys": {names["SK"]: {"S": [{"prefix": names["EVENT_PREFIX"]}]}}}}:
        yield f"the pipe takes {prefix}"
    if not re.search(r'"s3://[^/]+/results/<\$\.dynamodb\.NewImage\.run_id\.S>/outputs\.json"', template):
        yield "the pipe says another place of the outputs than collect writes"
    if 'format!("results/{run}/outputs.json")' not in code(ROOT / "crates/core/src/keys.rs"):
        yield "the outputs have another key than the pipe says"


def table(stack):
    """The table is the one that RunStore makes elsewhere."""
    names = dict(re.findall(r'pub const (\w+): &str = "([^"]+)"', code(ROOT / "crates/store/src/schema.rs")))
    item, = stack.of_type("AWS::DynamoDB::Table").values()
    keys = {key["KeyType"]: key["AttributeName"] for key in item["KeySchema"]}
    if keys != {"HASH": names["PK"], "RANGE": names["SK"]}:
        yield f"the table's keys are {keys}"
    indexes = {index["IndexName"]: index for index in item["GlobalSecondaryIndexes"]}
    expected = {names["BY_OWNER"]: ("OWNER_SHARD", "RUN_ID"), names["BY_STATE"]: ("PHASE", "UPDATED_AT")}
    yield from both("the table's indexes", set(expected), set(indexes))
    for name, (hashed, ranged) in expected.items():
        keys = [key["AttributeName"] for key in indexes[name]["KeySchema"]]
        if keys != [names[hashed], names[ranged]]:
            yield f"the index {name} has the keys {keys}"
    listed = re.search(r"LISTED: \[&str; \d+\] = \[([^\]]+)\]", code(ROOT / "crates/store/src/schema.rs"))[1]
    listed = {names[name.strip()] for name in listed.split(",")}
    yield from both("the index of owners", listed, set(indexes[names["BY_OWNER"]]["Projection"]["NonKeyAttributes"]))
    if item["TimeToLiveSpecification"]["AttributeName"] != names["EXPIRES_AT"]:
        yield "the table's TTL is another attribute than the code writes"


def metrics(stack, sources):
    """Alarms and the dashboard look at metrics of ours that functions make, by dimensions that these have."""
    source = code(ROOT / "crates/log/src/metrics.rs")
    made = {}
    for target, name, dimensions in re.findall(r'Metric \{ target: (\w+), name: "(\w+)", .*dimensions: &\[(.*)\] \}', source):
        made[name] = re.findall(r'"(\w+)"', dimensions)
        logged = [name for name, text in sources.text.items() if re.search(rf"target: {target}\b", text) and name != "log"]
        if not logged:
            yield f"nobody logs what {name} is made of"
    states = set(re.findall(r'=> "([A-Z_]+)"', code(ROOT / "crates/core/src/run_state.rs")))
    namespace = f"stepwes/{PSEUDO['AWS::StackName']}"
    asked = [
        (f"the alarm {alarm}", item["MetricName"], [(each["Name"], each["Value"]) for each in item.get("Dimensions", ())])
        for alarm, item in stack.of_type("AWS::CloudWatch::Alarm").items() if item["Namespace"] == namespace
    ]
    for item in stack.of_type("AWS::CloudWatch::Dashboard").values():
        for widget in json.loads(item["DashboardBody"])["widgets"]:
            for given, name, *rest in widget["properties"]["metrics"]:
                if given == namespace:
                    rest = [each for each in rest if isinstance(each, str)]
                    asked.append(("the dashboard", name, list(zip(rest[::2], rest[1::2], strict=True))))
    for who, name, dimensions in asked:
        if name not in made:
            yield f"{who} looks at {name}, which no function makes"
        elif [dimension for dimension, _ in dimensions] != made[name]:
            yield f"{who} looks at {name} by {[dimension for dimension, _ in dimensions]}; it is made by {made[name]}"
        for dimension, value in dimensions:
            if dimension in ("to", "from") and value not in states:
                yield f"{who} looks at {name} of {value}, which is no state"
    if len(asked) < 4:
        yield "alarms look at none of our metrics"
    environment = next(iter(functions(stack).values()))["Environment"]["Variables"]
    if environment["STEPWES_METRICS_NAMESPACE"] != namespace:
        yield f"metrics are made in {environment['STEPWES_METRICS_NAMESPACE']}, and looked for in {namespace}"
    # Each alarm says in docs/deploy.md what to do.
    advice = (ROOT / "docs/deploy.md").read_text()
    advice = advice[advice.index("## Alarms, and what to do"):]
    advice = advice[:advice.index("\n## ", 1)]
    advised = {name for row in re.findall(r"(?m)^\| ([A-Z][\w, ]+) \|", advice) for name in row.split(", ")}
    alarms = {name.removesuffix("Alarm") for name in stack.of_type("AWS::CloudWatch::Alarm")}
    yield from both("docs/deploy.md's alarms", alarms, advised if stack.conditions["Publishes"] else advised & alarms)


def parameters(template):
    for given, named in REFUSED:
        try:
            Stack(given, template)
        except Contradiction as refusal:
            if named not in str(refusal):
                yield f"{given} is refused, but with: {refusal}"
        else:
            yield f"{given} is not refused"
    for given in TAKEN:
        try:
            Stack(given, template)
        except Contradiction as refusal:
            yield f"{given} is refused: {refusal}"
    declared = set(template["Parameters"])
    text = json.dumps({key: template[key] for key in ("Resources", "Conditions", "Outputs")})
    for name in sorted(declared):
        if not re.search(rf'"Ref": "{name}"|\$\{{{name}\}}', text) and name != "AllowAnonymous":
            yield f"nothing uses the parameter {name}"
    interface = template["Metadata"]["AWS::CloudFormation::Interface"]
    grouped = [name for group in interface["ParameterGroups"] for name in group["Parameters"]]
    yield from both("grouped parameters", declared, set(grouped))
    yield from both("labelled parameters", declared, set(interface["ParameterLabels"]))
    without = {name for name, item in template["Parameters"].items() if "Default" not in item}
    yield from both("parameters without a default", set(GIVEN), without)


def problems(template, sources):
    yield from parameters(template)
    for what, given in VARIANTS.items():
        stack = Stack(given, template)
        found = [variables(stack, sources), image(stack), permissions(stack, sources), routes(stack, sources), table(stack), events_in(stack)]
        if stack.conditions["OnInstances"]:
            found.append(instances.problems(stack))
        if stack.conditions["Publishes"]:
            found.append(state_changes(stack))
        if stack.conditions["Monitored"]:
            found.append(metrics(stack, sources))
        for problem in (each for check in found for each in check):
            yield f"{problem} ({what})"
    every = set().union(*(Stack(given, template).resources for given in VARIANTS.values()))
    yield from both("resources that some variant makes", set(template["Resources"]), every)


def main():
    found = list(dict.fromkeys(problems(translated(), Sources())))
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
