cwlVersion: v1.2
class: Workflow
doc: A workflow in a workflow in a scatter, and several links to one input.
requirements:
  SubworkflowFeatureRequirement: {}
  ScatterFeatureRequirement: {}
  MultipleInputFeatureRequirement: {}
inputs: {texts: "File[]", last: File}
steps:
  each:
    run: inner/shout.cwl
    scatter: text
    in: {text: texts}
    out: [loud]
  all:
    run: inner/join.cwl
    in: {texts: {source: [each/loud, last], linkMerge: merge_flattened}}
    out: [joined]
outputs: {joined: {type: File, outputSource: all/joined}}
