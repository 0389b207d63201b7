cwlVersion: v1.2
class: CommandLineTool
requirements: {InlineJavascriptRequirement: {}}
inputs: {words: "string[]", factor: int, label: string}
baseCommand: printf
arguments: ['%s', $(inputs.words.length * inputs.factor)]
stdout: total
outputs:
  total: {type: int, outputBinding: {glob: total, loadContents: true, outputEval: '$(parseInt(self[0].contents))'}}
  label: {type: string, outputBinding: {outputEval: $(inputs.label)}}
