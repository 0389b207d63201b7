cwlVersion: v1.2
class: CommandLineTool
inputs: {text: string, number: int}
baseCommand: echo
outputs: []
