"""template.yaml as CloudFormation would read it: SAM's transform, parameters, conditions, rules and functions resolved.

Only what the template uses is understood; anything else is an error, so that nothing is passed over.
"""

import json
import logging
import os
import pathlib
import re

os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
# It warns of metrics of its own that nobody publishes.
logging.getLogger("samtranslator").setLevel(logging.ERROR)

from samtranslator.translator.transform import transform  # noqa: E402
from samtranslator.yaml_helper import yaml_parse  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "template.yaml"

ACCOUNT, REGION = "111122223333", "us-east-1"
PSEUDO = {
    "AWS::AccountId": ACCOUNT, "AWS::Partition": "aws", "AWS::Region": REGION, "AWS::StackName": "stepwes",
    "AWS::URLSuffix": "amazonaws.com", "AWS::NoValue": None,
}

# What the parameters without defaults are given.
GIVEN = {"EngineImage": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/stepwes-engine:1"}

NETWORK = {"VpcId": "vpc-0123456789abcdef0", "SubnetIds": "subnet-0123456789abcdef0", "AssignPublicIp": "DISABLED"}
# Sets of parameters that between them make every resource and take every branch of a policy.
VARIANTS = {
    "the defaults": {},
    "everything on Fargate": {
        "InputBuckets": "reference-genomes,lab-data", "OutputBuckets": "lab-results", "DestBucketBase": "s3://lab-results/runs",
        "TriggerBuckets": "lab-data,incoming", "Spot": "yes", "AdminGroup": "admins", "StateChangeTopic": "yes",
        "WebhookUrl": "https://example.org/wes", "WebhookSecret": "secret", "AlarmEmail": "ops@example.org",
        "PublicServiceInfo": "yes", "Architecture": "arm64", "RunDays": "400", "RunFiles": "remove",
        "DrsTokensSecret": "arn:aws:secretsmanager:us-east-1:111122223333:secret:stepwes/drs-AbCdEf",
    },
    "instances, JWT": {
        "Compute": "ec2", "Spot": "yes", "AuthMode": "jwt", "JwtIssuer": "https://id.example.org", "JwtAudience": "wes,other",
        "SecurityGroupId": "sg-0123456789abcdef0",
    } | NETWORK,
    "IAM, and nothing beside": {"AuthMode": "iam", "StateChanges": "no", "Monitoring": "no"} | NETWORK,
    "open": {"AuthMode": "none", "AllowAnonymous": "yes"},
}

ARNS = {
    "AWS::DynamoDB::Table": "dynamodb:{r}:{a}:table/{id}",
    "AWS::ECS::Cluster": f"ecs:{REGION}:{ACCOUNT}:cluster/{{id}}",
    "AWS::Events::ApiDestination": "events:{r}:{a}:api-destination/{id}/11111111-2222-3333-4444-555555555555",
    "AWS::Events::Connection": "events:{r}:{a}:connection/{id}/11111111-2222-3333-4444-555555555555",
    "AWS::Events::EventBus": "events:{r}:{a}:event-bus/{id}",
    "AWS::Events::Rule": "events:{r}:{a}:rule/{id}",
    "AWS::IAM::InstanceProfile": "iam::{a}:instance-profile/{id}",
    "AWS::IAM::Role": "iam::{a}:role/{id}",
    "AWS::Lambda::Function": "lambda:{r}:{a}:function:{id}",
    "AWS::Logs::LogGroup": "logs:{r}:{a}:log-group:{id}:*",
    "AWS::S3::Bucket": "s3:::{id}",
    "AWS::SQS::Queue": "sqs:{r}:{a}:{id}",
    "AWS::SNS::Topic": "sns:{r}:{a}:{id}",
    "AWS::StepFunctions::StateMachine": "states:{r}:{a}:stateMachine:{id}",
    "AWS::ECS::TaskDefinition": "ecs:{r}:{a}:task-definition/{id}:1",
}
# Resources whose Ref is their ARN.
REF_IS_ARN = {"AWS::SNS::Topic", "AWS::StepFunctions::StateMachine", "AWS::ECS::TaskDefinition"}


class Contradiction(Exception):
    """What CloudFormation would refuse to deploy, in the template's own words."""


def translated(text=None):
    """As SAM hands it to CloudFormation, but for where the code lies."""
    template = yaml_parse(text or TEMPLATE.read_text())
    template["Globals"]["Function"].pop("CodeUri")
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = "s3://packages/function"
        if resource["Type"] == "AWS::Serverless::StateMachine":
            resource["Properties"]["DefinitionUri"] = "s3://packages/machine"

    class NoManagedPolicies:
        def load(self):
            return {}

    return transform(template, {}, NoManagedPolicies())


class Stack:
    """The stack that some parameters make."""

    def __init__(self, given=(), template=None):
        self.template = template or translated()
        self.parameters = self._parameters(GIVEN | dict(given))
        self._check_rules()
        self.conditions = {}
        self.resources = {}
        for name, resource in self.template["Resources"].items():
            condition = resource.get("Condition")
            if condition is None or self.condition(condition):
                self.resources[name] = resource
        self.resolved = {
            name: {"Type": resource["Type"], "Properties": self.value(resource.get("Properties", {}))}
            for name, resource in self.resources.items()
        }

    # ------------------------------------------------------------------ parameters and rules

    def _parameters(self, given):
        declared = self.template["Parameters"]
        if unknown := given.keys() - declared.keys():
            raise Contradiction(f"there are no parameters {', '.join(sorted(unknown))}")
        values = {}
        for name, declaration in declared.items():
            value = given.get(name, declaration.get("Default"))
            if value is None:
                raise Contradiction(f"{name} must be given")
            self._check_parameter(name, declaration, str(value))
            is_list = declaration["Type"] == "CommaDelimitedList"
            values[name] = [part.strip() for part in str(value).split(",")] if is_list else str(value)
        return values

    @staticmethod
    def _check_parameter(name, declaration, value):
        kind = declaration["Type"]
        assert kind in {"String", "Number", "CommaDelimitedList"}, f"{name} is of type {kind}"
        # CloudFormation leaves out the blanks around members.
        parts = [part.strip() for part in value.split(",")] if kind == "CommaDelimitedList" else [value]
        pattern = declaration.get("AllowedPattern", "")
        problem = declaration.get("ConstraintDescription", "its constraints")
        if pattern and not all(re.fullmatch(pattern, part) for part in parts):
            raise Contradiction(f"{name} must be {problem}")
        allowed = declaration.get("AllowedValues")
        if allowed and value not in map(str, allowed):
            raise Contradiction(f"{name} must be one of {allowed}")
        if len(value) > declaration.get("MaxLength", len(value)):
            raise Contradiction(f"{name} is too long")
        if kind == "Number":
            try:
                number = float(value)
            except ValueError:
                raise Contradiction(f"{name} is no number") from None
            if not declaration.get("MinValue", number) <= number <= declaration.get("MaxValue", number):
                raise Contradiction(f"{name} is out of its range")

    def _check_rules(self):
        for rule in self.template.get("Rules", {}).values():
            if not self.truth(rule.get("RuleCondition", True)):
                continue
            for assertion in rule["Assertions"]:
                if not self.truth(assertion["Assert"]):
                    raise Contradiction(assertion["AssertDescription"])

    # ------------------------------------------------------------------ conditions

    def condition(self, name):
        if name not in self.conditions:
            self.conditions[name] = self.truth(self.template["Conditions"][name])
        return self.conditions[name]

    def truth(self, expression):
        if isinstance(expression, bool):
            return expression
        (function, argument), = expression.items()
        if function == "Condition":
            return self.condition(argument)
        if function == "Fn::Equals":
            left, right = map(self.value, argument)
            return str(left) == str(right)
        if function == "Fn::Not":
            return not self.truth(argument[0])
        if function == "Fn::And":
            return all(map(self.truth, argument))
        if function == "Fn::Or":
            return any(map(self.truth, argument))
        if function == "Fn::Contains":
            return str(self.value(argument[1])) in map(str, self.value(argument[0]))
        raise NotImplementedError(function)

    # ------------------------------------------------------------------ values

    def value(self, node):
        if isinstance(node, list):
            return [value for value in map(self.value, node) if value is not None]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            (function, argument), = node.items()
            if function == "Ref" or function.startswith("Fn::"):
                return self._function(function, argument)
        values = {key: self.value(item) for key, item in node.items()}
        return {key: value for key, value in values.items() if value is not None}

    def _function(self, function, argument):
        if function == "Ref":
            return self._ref(argument)
        if function == "Fn::GetAtt":
            name, attribute = argument if isinstance(argument, list) else argument.split(".", 1)
            return self._attribute(name, attribute)
        if function == "Fn::If":
            return self.value(argument[1] if self.condition(argument[0]) else argument[2])
        if function == "Fn::Sub":
            return self._substitute(argument)
        if function == "Fn::Join":
            return argument[0].join(map(str, self.value(argument[1])))
        if function == "Fn::Split":
            return self.value(argument[1]).split(argument[0])
        if function == "Fn::Select":
            return self.value(argument[1])[int(argument[0])]
        if function == "Fn::GetAZs":
            return [f"{REGION}{zone}" for zone in "abc"]
        if function == "Fn::FindInMap":
            return self.template["Mappings"][argument[0]][self.value(argument[1])][self.value(argument[2])]
        if function == "Fn::Base64":
            return self.value(argument)
        raise NotImplementedError(function)

    def _substitute(self, argument):
        text, names = (argument, {}) if isinstance(argument, str) else argument

        def replaced(match):
            name = match[1]
            if name in names:
                return str(self.value(names[name]))
            return str(self._attribute(*name.split(".", 1)) if "." in name else self._ref(name))

        return re.sub(r"\$\{([^!}][^}]*)\}", replaced, text)

    def _ref(self, name):
        if name in PSEUDO:
            return PSEUDO[name]
        if name in self.parameters:
            return self.parameters[name]
        resource = self._resource(name)
        return self._arn(name) if resource["Type"] in REF_IS_ARN else self._name(name)

    def _attribute(self, name, attribute):
        kind = self._resource(name)["Type"]
        if attribute == "Arn":
            return self._arn(name)
        if attribute == "StreamArn":
            # Its label is a time with colons, which parliament takes for the ARN's own.
            return f"{self._arn(name)}/stream/label"
        if attribute in {"GroupId", "Name", "QueueName", "ApiEndpoint", "LatestVersionNumber"}:
            return f"{name.lower()}-{attribute.lower()}"
        raise NotImplementedError(f"{kind}.{attribute}")

    def _resource(self, name):
        if name not in self.resources and name in self.template["Resources"]:
            condition = self.template["Resources"][name].get("Condition")
            assert condition is None or self.condition(condition), f"{name} is referred to, but is not there"
        return self.template["Resources"][name]

    def _name(self, name):
        properties = self.template["Resources"][name].get("Properties", {})
        for key in ("LogGroupName", "Name"):
            if key in properties and self.template["Resources"][name]["Type"] != "AWS::ApiGatewayV2::Api":
                return self.value(properties[key])
        return f"stepwes-{name.lower()}"

    def _arn(self, name):
        kind = self._resource(name)["Type"]
        return "arn:aws:" + ARNS[kind].format(r=REGION, a=ACCOUNT, id=self._name(name))

    # ------------------------------------------------------------------ what checks ask for

    def of_type(self, kind):
        return {name: item["Properties"] for name, item in self.resolved.items() if item["Type"] == kind}

    def policies(self):
        """Every identity policy, by the role that has it: (role, policy's name, document)."""
        for name, role in self.of_type("AWS::IAM::Role").items():
            assert not role.get("ManagedPolicyArns"), f"{name} has policies that are not in the template"
            for policy in role.get("Policies", []):
                yield name, policy["PolicyName"], policy["PolicyDocument"]
        for policy in self.of_type("AWS::IAM::Policy").values():
            for role in policy["Roles"]:
                name, = [name for name in self.of_type("AWS::IAM::Role") if self._name(name) == role]
                yield name, policy["PolicyName"], policy["PolicyDocument"]

    def statements(self, role):
        return [statement for name, _, document in self.policies() if name == role for statement in document["Statement"]]


def as_list(value):
    return value if isinstance(value, list) else [value]


def dump(document):
    return json.dumps(document, indent=2, sort_keys=True)
