cwlVersion: v1.2
class: CommandLineTool
inputs: {texts: {type: "File[]", inputBinding: {}}}
baseCommand: cat
stdout: joined.txt
outputs: {joined: stdout}
