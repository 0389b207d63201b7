cwlVersion: v1.2
class: CommandLineTool
doc: Asks for credentials as AWS's SDKs do, and writes down what it was given and the token that it asked with, all backwards.
requirements:
  InitialWorkDirRequirement:
    listing:
      - entryname: borrow.py
        entry: |
          import json, os, urllib.request
          token = os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
          request = urllib.request.Request(os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"], headers={"Authorization": token})
          lent = json.load(urllib.request.urlopen(request, timeout=60))
          print(json.dumps([secret[::-1] for secret in (token, lent["SecretAccessKey"], lent["Token"])]))
inputs:
  python: string
arguments: [$(inputs.python), borrow.py]
stdout: borrowed.json
outputs:
  borrowed: stdout
