cwlVersion: v1.2
class: Workflow
doc: Expressions in a library, in a step's inputs, of an ExpressionTool, and in a tool's output.
requirements: {InlineJavascriptRequirement: {}, StepInputExpressionRequirement: {}}
inputs: {text: File, factor: int}
steps:
  words:
    run: words.cwl
    in: {text: text}
    out: [words]
  count:
    run: count.cwl
    in:
      words: words/words
      factor: factor
      label: {valueFrom: '$(inputs.words.length + " words")'}
    out: [total, label]
outputs:
  words: {type: "string[]", outputSource: words/words}
  total: {type: int, outputSource: count/total}
  label: {type: string, outputSource: count/label}
