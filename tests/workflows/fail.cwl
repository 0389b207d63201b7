cwlVersion: v1.2
class: CommandLineTool
doc: Fails with a code of its own.
inputs: {}
baseCommand: [sh, -c, 'echo "it is broken" >&2; exit 7']
outputs: []
