cwlVersion: v1.2
class: Workflow
inputs: {text: File}
steps:
  upper: {run: tools/filter.cwl, in: {text: text, from: {default: a-z}, to: {default: A-Z}}, out: [filtered]}
  bang: {run: tools/filter.cwl, in: {text: upper/filtered, from: {default: .}, to: {default: '!'}}, out: [filtered]}
outputs: {loud: {type: File, outputSource: bang/filtered}}
