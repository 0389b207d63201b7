"""DynamoDB: the request units that calls consume, as ministack reckons them, which nobody here asks for.

`UNITS` has them by caller, operation and kind. ministack reckons a write by the larger of an item's sizes before and
after, twice in a transaction, and each index entry that comes, goes or changes besides; a read as one item below 4 KB,
which all of ours are. <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html>,
<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/GSI.html#GSI.ThroughputConsiderations.Writes>
"""

import collections
import contextvars
import json

from ministack.services import dynamodb

CALLER = contextvars.ContextVar("caller", default="nobody")
UNITS = collections.Counter()
OPERATIONS = {
    "_get_item": "read", "_query": "read", "_put_item": "write", "_update_item": "write", "_delete_item": "write",
    "_transact_write_items": "write",
}


def with_units(operation, kind):
    handler = getattr(dynamodb, operation)

    def counted(data):
        status, headers, body = handler({**data, "ReturnConsumedCapacity": "INDEXES"})
        answer = json.loads(body)
        consumed = answer.pop("ConsumedCapacity", [])
        for table in [consumed] if isinstance(consumed, dict) else consumed:
            UNITS[f"{CALLER.get()} {kind}"] += table["CapacityUnits"]
        return status, headers, json.dumps(answer).encode()

    return counted


for name, kind_of in OPERATIONS.items():
    setattr(dynamodb, name, with_units(name, kind_of))
