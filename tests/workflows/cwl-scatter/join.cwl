cwlVersion: v1.2
class: CommandLineTool
baseCommand: [printf, '%s-%s']
inputs:
  first: {type: string, inputBinding: {position: 1}}
  second: {type: string, inputBinding: {position: 2}}
stdout: $(inputs.first)$(inputs.second).txt
outputs: {joined: stdout}
