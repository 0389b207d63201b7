#!/usr/bin/env python3
"""Shows that contract.py sees what it is there to see: each of these edits of template.yaml must be found."""

import sys

from contract import problems
from rust_source import Sources
from stack import TEMPLATE, translated

# (what is in the template, what stands there instead, a word of the complaint)
MUTANTS = [
    ("STEPWES_IDEMPOTENCY_DAYS: !Ref IdempotencyDays", "STEPWES_IDEMPOTENCY_DAY: !Ref IdempotencyDays", "STEPWES_IDEMPOTENCY_DAYS"),
    ("- {Name: STEPWES_BUCKET, Value: !Ref RunsBucket}", "- {Name: STEPWES_BUCKETS, Value: !Ref RunsBucket}", "STEPWES_BUCKET"),
    ("Action: [s3:PutObject, s3:DeleteObject]", "Action: s3:PutObject", "what submit deletes"),
    ('!Sub "${RunsBucket.Arn}/work/*/state/*"]', '!Sub "${RunsBucket.Arn}/work/*"]', "what submit reads"),
    ("Action: states:StartExecution", "Action: [states:StartExecution, states:StopExecution]", "no use for it"),
    ("Action: [ecs:DescribeTasks, ecs:StopTask]", "Action: ecs:DescribeTasks", "ecs:StopTask"),
    ("Action: states:DescribeExecution", "Action: states:StopExecution", "states:DescribeExecution"),
    ('"ForAnyValue:StringEquals": {"dynamodb:LeadingKeys": [TOKENS]', '"ForAnyValue:StringEquals": {"dynamodb:LeadingKeys": [TOKEN]', "callers' tokens"),
    ('"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [TOKENS]', '"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [COUNTS]', "more of the table"),
    ("RouteKey: GET /ga4gh/wes/v1/runs/{run_id}/tasks/{task_id+}", "RouteKey: GET /ga4gh/wes/v1/runs/{run_id}/tasks/{task_id}", "routes"),
    ('Target: !Sub "integrations/${CancelIntegration}"', 'Target: !Sub "integrations/${StatusIntegration}"', "cancel"),
    ("AuthorizationType: !FindInMap [AuthorizationTypes, !Ref AuthMode, Type]", "AuthorizationType: NONE", "asks for"),
    ("SecurityGroup: !If [OwnSecurityGroup", "SecurityGroups: !If [OwnSecurityGroup", "substitutions"),
    ("<$.dynamodb.NewImage.version.N>", "<$.dynamodb.NewImage.version.S>", "version"),
    ('"<$.dynamodb.NewImage.from.S>"', "<$.dynamodb.NewImage.from.S>", "quote"),
    ("DetailType: WES Run State Change", "DetailType: WES Run Changed", "StateChange's DETAIL_TYPE"),
    ('[{"prefix": "EVENT#"}]', '[{"prefix": "EVENTS#"}]', "the pipe takes"),
    ("Resource: [!GetAtt RunTable.Arn, !Sub \"${RunTable.Arn}/index/by_owner\", !Sub \"${RunTable.Arn}/index/by_state\"]", "Resource: !Sub \"${RunTable.Arn}*\"", "stream"),
    ("NonKeyAttributes: [state, start_time, end_time, tags]", "NonKeyAttributes: [state, start_time, end_time]", "index of owners"),
    ("MetricName: Repairs\n", "MetricName: Repaired\n", "no function makes"),
    ("Dimensions: [{Name: to, Value: SYSTEM_ERROR}]", "Dimensions: [{Name: state, Value: SYSTEM_ERROR}]", "it is made by"),
    ("Dimensions: [{Name: to, Value: SYSTEM_ERROR}]", "Dimensions: [{Name: to, Value: FAILED}]", "no state"),
    ('STEPWES_METRICS_NAMESPACE: !Sub "stepwes/${AWS::StackName}"', 'STEPWES_METRICS_NAMESPACE: !Sub "wes/${AWS::StackName}"', "looked for in"),
    ("Assert: !Equals [!Ref AllowAnonymous, \"yes\"]", "Assert: !Equals [!Ref AuthMode, none]", "not refused"),
    ('User: !If [OnInstances, "2000:2000"', 'User: !If [OnInstances, "1000:1000"', "is made for"),
    ("ContainerPath: /var/lib/stepwes}", "ContainerPath: /work}", "of 2000:2000's"),
    ("          StopTimeout: 120\n", "          StopTimeout: 120\n          LinuxParameters: {InitProcessEnabled: true}\n", "init process"),
    ('"versions": ["3.3.', '"versions": ["3.4.', "lock files"),
    ("{prefix: submit/}, {prefix: triggers/}", "{prefix: submit/}", "what is dropped"),
    ('"${RunsBucket.Arn}/triggers/*"]', '"${RunsBucket.Arn}/trigger/*"]', "what submit reads"),
    ('"${RunsBucket.Arn}/rejected/*"', '"${RunsBucket.Arn}/*"', "what submit writes"),
    ("bucket: {name: !Split [\",\", !Ref TriggerBuckets]}", "bucket: {name: [lab-data]}", "what triggers look at"),
    ("Prefix: rejected/", "Prefix: refused/", "kept for ever"),
    ("STEPWES_RETENTION_FILES: !Ref RunFiles", "STEPWES_RETENTION_FILE: !Ref RunFiles", "STEPWES_RETENTION_FILES"),
    ("                - RemovesFiles\n                - Effect: Allow\n                  Action: s3:DeleteObject", "                - RemovesFiles\n                - Effect: Allow\n                  Action: s3:GetObject", "what ReconcileRole deletes"),
    ("{Binary: collect}", "{Binary: advance}", "runs the binary"),
    ("{Name: work, Host: {SourcePath: /var/lib/stepwes}}", "{Name: work, Host: {SourcePath: /var/lib/work}}", "one path"),
    ("ContainerPath: /var/run/docker.sock", "ContainerPath: /run/docker.sock", "socket"),
    ("{Name: STEPWES_WORK_DIR, Value: /var/lib/stepwes}", "{Name: STEPWES_WORK_DIR, Value: /var/lib/other}", "work folder"),
    ('"2000:2000"', '"1000:1000"', "for 1000:1000 alone"),
    ("groupmod --gid 2000 docker", "groupmod --gid 2001 docker", "group 2000"),
    ("ECS_AWSVPC_BLOCK_IMDS=true", "ECS_AWSVPC_BLOCK_IMDS=false", "instance's role"),
    ('MinSize: "0"', 'MinSize: "1"', "nobody needs"),
    ("NewInstancesProtectedFromScaleIn: true", "NewInstancesProtectedFromScaleIn: false", "scale-in"),
    ("Parameters: [ServiceInfo, PublicUrl,", "Parameters: [PublicUrl,", "grouped"),
]


def main():
    text, sources, missed = TEMPLATE.read_text(), Sources(), []
    for old, new, complaint in MUTANTS:
        if old not in text:
            missed.append(f"there is no {old!r} to change")
            continue
        found = list(problems(translated(text.replace(old, new, 1)), sources))
        if not any(complaint in problem for problem in found):
            missed.append(f"{old!r} changed to {new!r} is not complained of: {found[:3]}")
    for problem in missed:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
