cwlVersion: v1.2
class: Workflow
doc: Two steps over an attached file, one of them in a subfolder.
inputs:
  text: File
steps:
  upper:
    run: tools/upper.cwl
    in: {text: text}
    out: [upper]
  count:
    run: tools/count.cwl
    in: {text: upper/upper}
    out: [counts]
outputs:
  upper: {type: File, outputSource: upper/upper}
  counts: {type: Directory, outputSource: count/counts}
