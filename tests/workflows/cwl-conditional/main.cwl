cwlVersion: v1.2
class: Workflow
doc: Steps that run only when they should, and outputs of whichever did.
requirements:
  InlineJavascriptRequirement: {}
  MultipleInputFeatureRequirement: {}
  ScatterFeatureRequirement: {}
inputs: {numbers: "int[]", fast: boolean}
steps:
  even:
    run: say.cwl
    scatter: number
    when: $(inputs.number % 2 == 0)
    in: {number: numbers}
    out: [said]
  quick:
    run: say.cwl
    when: $(inputs.fast)
    in: {fast: fast, number: {default: 1}}
    out: [said]
  slow:
    run: say.cwl
    when: $(!inputs.fast)
    in: {fast: fast, number: {default: 100}}
    out: [said]
outputs:
  even: {type: "string[]", outputSource: even/said, pickValue: all_non_null}
  chosen: {type: string, outputSource: [quick/said, slow/said], pickValue: the_only_non_null}
  skipped: {type: string?, outputSource: quick/said}
