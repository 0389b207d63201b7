"""Asks S3 what a file says, once it is there: a list of operations of boto3's client with their parameters. Prints how
each was answered, and what the environment says of AWS."""

import json
import os
import pathlib
import sys
import time

import boto3
from botocore.exceptions import ClientError

questions = pathlib.Path(sys.argv[1])
while not questions.exists():
    time.sleep(0.05)
session = boto3.Session()
s3 = session.client("s3")
answers = []
for operation, parameters in json.loads(questions.read_text()):
    try:
        answer = getattr(s3, operation)(**parameters)
        content = answer["Body"].read().decode() if "Body" in answer else sorted(each["Key"] for each in answer.get("Contents", []))
        answers.append(content)
    except ClientError as error:
        answers.append({"code": error.response["Error"]["Code"]})
json.dump({
    "answers": answers,
    "method": session.get_credentials().method,
    "environment": sorted(name for name in os.environ if name.startswith(("AWS_", "STEPWES_", "ECS_"))),
}, sys.stdout)
