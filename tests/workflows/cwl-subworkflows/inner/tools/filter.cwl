cwlVersion: v1.2
class: CommandLineTool
inputs:
  text: File
  from: {type: string, inputBinding: {position: 1}}
  to: {type: string, inputBinding: {position: 2}}
baseCommand: tr
stdin: $(inputs.text.path)
stdout: filtered.txt
outputs: {filtered: stdout}
