cwlVersion: v1.2
class: CommandLineTool
inputs:
  text: {type: File, inputBinding: {position: 1}}
baseCommand: [sh, -c, 'tr a-z A-Z < "$0"']
stdout: upper case.txt
outputs:
  upper: stdout
