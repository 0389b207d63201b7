cwlVersion: v1.2
class: CommandLineTool
doc: Says that it has started, then waits until a file is there.
requirements:
  InlineJavascriptRequirement: {}
inputs:
  gate: string
  marker: string
baseCommand: [sh, -c]
arguments:
  - valueFrom: 'echo "started $1" >&2; while [ ! -e "$0" ]; do sleep 0.05; done; echo done'
    position: 0
  - valueFrom: $(inputs.gate)
    position: 1
  - valueFrom: $(inputs.marker)
    position: 2
outputs:
  said: stdout
