cwlVersion: v1.2
class: CommandLineTool
inputs: {number: {type: int, inputBinding: {}}}
baseCommand: [printf, 'number %s']
stdout: said
outputs: {said: {type: string, outputBinding: {glob: said, loadContents: true, outputEval: '$(self[0].contents)'}}}
requirements: {InlineJavascriptRequirement: {}}
