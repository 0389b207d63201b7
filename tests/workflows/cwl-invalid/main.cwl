cwlVersion: v1.2
class: CommandLineTool
inputs: {text: strin}
baseCommand: echo
outputs: []
