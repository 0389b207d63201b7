"""What the Rust sources call, as far as their text tells it: functions, what they call, and the literals in them.

No compiler: names are resolved by the types that a State's fields have and by the modules' names. It errs towards
more calls than there are (all of a function crate counts as used, which the compiler's dead-code lint holds to be
so); what it cannot resolve among names that matter is an error.
"""

import dataclasses
import functools
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]

# The operations of AWS SDK clients, as fluent calls without arguments on a client.
SDK = {
    "dynamodb": {"get_item", "query", "scan", "update_item", "put_item", "delete_item", "transact_write_items", "batch_get_item"},
    "s3": {
        "get_object", "head_object", "put_object", "delete_object", "delete_objects", "list_objects_v2", "copy_object",
        "create_multipart_upload", "upload_part", "complete_multipart_upload", "abort_multipart_upload", "head_bucket",
    },
    "ecs": {"describe_tasks", "stop_task", "list_tasks", "run_task"},
    "sfn": {"start_execution", "describe_execution", "stop_execution", "list_executions"},
    "sts": {"assume_role", "get_caller_identity"},
    "lambda": {"invoke"},
}
OPERATION = {name: service for service, names in SDK.items() for name in names}

# The IAM actions of an operation. `transact_write_items` takes those of what it carries.
ACTIONS = {
    "get_item": {"dynamodb:GetItem"}, "batch_get_item": {"dynamodb:BatchGetItem"}, "query": {"dynamodb:Query"}, "update_item": {"dynamodb:UpdateItem"},
    "put_item": {"dynamodb:PutItem"}, "delete_item": {"dynamodb:DeleteItem"}, "transact_write_items": set(),
    "transact:put": {"dynamodb:PutItem"}, "transact:update": {"dynamodb:UpdateItem"},
    "transact:delete": {"dynamodb:DeleteItem"}, "transact:condition_check": {"dynamodb:ConditionCheckItem"},
    # Without the right to list, S3 answers 403 where it should say that there is no such object.
    "get_object": {"s3:GetObject", "s3:ListBucket"}, "head_object": {"s3:GetObject", "s3:ListBucket"},
    "put_object": {"s3:PutObject"}, "delete_object": {"s3:DeleteObject"}, "list_objects_v2": {"s3:ListBucket"},
    "delete_objects": {"s3:DeleteObject"}, "copy_object": {"s3:GetObject", "s3:ListBucket", "s3:PutObject"},
    "create_multipart_upload": {"s3:PutObject"}, "upload_part": {"s3:PutObject"},
    "complete_multipart_upload": {"s3:PutObject"}, "abort_multipart_upload": {"s3:AbortMultipartUpload"},
    "describe_tasks": {"ecs:DescribeTasks"}, "stop_task": {"ecs:StopTask"}, "list_tasks": {"ecs:ListTasks"},
    "start_execution": {"states:StartExecution"}, "describe_execution": {"states:DescribeExecution"},
    "assume_role": {"sts:AssumeRole"}, "invoke": {"lambda:InvokeFunction"},
}


@dataclasses.dataclass
class Function:
    crate: str
    module: str
    owner: str | None
    name: str
    body: str


def code(path):
    """A source without its tests and comments."""
    text = re.split(r"(?m)^#\[cfg\(test\)\]\nmod \w+ \{", path.read_text())[0]
    return re.sub(r"(?m)^\s*//.*$|(?<=[;,{}\s])//.*$", "", text)


def block(text, start):
    """The text of the braces that open at or after `start`, and where it ends."""
    begin = text.index("{", start)
    depth, at, in_string = 0, begin, False
    while at < len(text):
        char = text[at]
        if in_string:
            if char == "\\":
                at += 1
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char == "'" and re.match(r"'(\\.|[^\\'])'", text[at:at + 4]):
            at += len(re.match(r"'(\\.|[^\\'])'", text[at:at + 4])[0]) - 1
        elif char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return text[begin:at + 1], at + 1
        at += 1
    raise ValueError("unbalanced braces")


def functions_of(crate, folder):
    found = []
    for path in sorted((ROOT / folder / "src").rglob("*.rs")):
        text = code(path)
        impls = []
        for match in re.finditer(r"(?m)^impl(?:<[^{]*?>)? (?:[\w:<>', ]+ for )?(\w+)", text):
            _, end = block(text, match.end())
            impls.append((match.start(), end, match[1]))
        module = path.stem if path.stem not in {"lib", "main", "mod"} else path.parent.name.replace("src", crate)
        for match in re.finditer(r"\bfn (\w+)", text):
            brace, semicolon = text.find("{", match.end()), text.find(";", match.end())
            if brace < 0 or 0 <= semicolon < brace:
                continue
            body, _ = block(text, match.end())
            owner = next((name for start, end, name in impls if start < match.start() < end), None)
            found.append(Function(crate, module, owner, match[1], body))
    return found


class Sources:
    """Every crate that may run in AWS, by its name."""

    # Types of ours that hold a client, by the names of fields that hold them.
    HOLDERS = ("RunStore", "Objects", "Tasks", "Finisher", "Executions", "Queue", "Admission", "Caller")

    def __init__(self):
        members = re.findall(r'"((?:crates|functions)/\w+)"', (ROOT / "Cargo.toml").read_text())
        self.functions = {}
        self.text = {}
        for folder in members:
            if folder.split("/")[1] in {"local", "cli", "asl"}:
                continue
            crate = folder.split("/")[1]
            self.functions[crate] = functions_of(crate, folder)
            self.text[crate] = "\n".join(code(path) for path in sorted((ROOT / folder / "src").rglob("*.rs")))
        self._free, self._owned = {}, {}
        for function in (each for functions in self.functions.values() for each in functions):
            if function.owner is None:
                self._free.setdefault(function.name, []).append(function)
            else:
                self._owned.setdefault((function.owner, function.name), []).append(function)
        self.folders = {folder.split("/")[1]: folder for folder in members}

    def lambdas(self):
        return [crate for crate, folder in self.folders.items() if folder.startswith("functions/")]

    def _methods(self, owner, name):
        return self._owned.get((owner, name), [])

    @functools.cache
    def _fields(self, crate):
        """Fields and parameters of the crate by what of ours they hold."""
        holders = "|".join(self.HOLDERS)
        pairs = re.findall(rf"\b(\w+): &?(?:'\w+ )?(?:mut )?(?:Option<)?({holders})\b", self.text[crate])
        # Of a State of another crate's, as reconcile's own modules have it.
        return {name: owner for name, owner in pairs}

    def calls(self, function):
        """The functions of ours that `function` may call."""
        found = []
        body = function.body
        fields = self._fields(function.crate)
        for receiver, name in re.findall(r"\b(\w+)\s*\.\s*(\w+)\s*\(", body):
            if receiver == "self":
                found += [each for each in self._methods(function.owner, name) if each.crate == function.crate]
            elif receiver in fields:
                found += self._methods(fields[receiver], name)
        for owner, name in re.findall(r"(?=\b(\w+)::(\w+)\b)", body):
            methods = self._methods(function.owner if owner == "Self" else owner, name)
            # Every function has a State and Settings: the nearest is meant.
            found += [each for each in methods if each.crate == function.crate] or methods
            found += [each for each in self._free.get(name, []) if each.module == owner]
        for name in re.findall(r"(?<![\w.:])(\w+)\s*(?:::<[^>]*>)?\(", body):
            near = [each for each in self.functions[function.crate] if each.owner is None and each.name == name]
            found += near or self._imported(function.crate, name)
        return found

    def _imported(self, crate, name):
        """A free function of another crate of ours that `use` brings in by its name."""
        far = self._free.get(name, [])
        used = far and re.search(rf"\buse stepwes_\w+::[^;]*\b{name}\b[^;]*;", self.text[crate])
        return far if used else []

    @functools.cache
    def reached(self, crate):
        """The functions of ours that a function's binary may run."""
        waiting = list(self.functions[crate])
        # Extractors are called by the framework, by the type of a parameter.
        if re.search(r"\b\w+: Caller\b", self.text[crate]):
            waiting += [each for each in self.functions["cloud"] if each.owner == "Caller"]
        seen = {}
        while waiting:
            function = waiting.pop()
            if id(function) not in seen:
                seen[id(function)] = function
                waiting += self.calls(function)
        return list(seen.values())

    def operations(self, crate):
        """The SDK's operations that a crate's code makes, itself or through ours."""
        found = set()
        for function in self.reached(crate):
            # Fluent calls take no arguments; the paginator and presigning hang on the same call.
            for receiver, name in re.findall(r"(\w*)\s*\.\s*(\w+)\(\)", function.body):
                # URLs have a query, too.
                if name in OPERATION and (name != "query" or receiver == "client"):
                    found.add(name)
            for kind in re.findall(r"TransactWriteItem::builder\(\)\s*\.(\w+)\(", function.body):
                found.add(f"transact:{kind}")
        return found

    def actions(self, crate):
        return set().union(*(ACTIONS[operation] for operation in self.operations(crate)))

    def variables(self, crate, constants):
        """The environment variables that a crate's code may read: whole literals, and constants by name."""
        found = set()
        for function in self.reached(crate):
            found |= set(re.findall(r'"(STEPWES_\w+)"', function.body))
            for name, value in constants.items():
                if re.search(rf"\b{re.escape(name)}\b", function.body):
                    found.add(value)
        return found

    def constants(self):
        """`pub const NAME: &str = "STEPWES_…"`, by the name under which code uses it."""
        found = {}
        for crate, folder in self.folders.items():
            if crate not in self.functions:
                continue
            for path in (ROOT / folder / "src").rglob("*.rs"):
                text = code(path)
                for match in re.finditer(r'const (\w+): &str =\s*"(STEPWES_\w+)"', text):
                    in_module = re.search(r"mod env \{", text)
                    found[f"env::{match[1]}" if in_module else match[1]] = match[2]
        return found
