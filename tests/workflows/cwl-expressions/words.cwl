cwlVersion: v1.2
class: ExpressionTool
requirements:
  InlineJavascriptRequirement: {expressionLib: [{$include: library.js}]}
inputs: {text: {type: File, loadContents: true}}
expression: '${ return {words: sorted(inputs.text.contents)}; }'
outputs: {words: "string[]"}
