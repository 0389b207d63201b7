cwlVersion: v1.2
class: CommandLineTool
inputs:
  code: {type: int, inputBinding: {}}
  after: File?
baseCommand: [sh, -c, 'echo "exits with $0" >&2; exit "$0"']
stdout: done
outputs: {done: stdout}
