cwlVersion: v1.2
class: Workflow
doc: The three ways to scatter over two inputs, and one step over what another has scattered.
requirements: {ScatterFeatureRequirement: {}}
inputs: {letters: "string[]", numbers: "string[]"}
steps:
  dot:
    run: join.cwl
    scatter: [first, second]
    scatterMethod: dotproduct
    in: {first: letters, second: numbers}
    out: [joined]
  flat:
    run: join.cwl
    scatter: [first, second]
    scatterMethod: flat_crossproduct
    in: {first: letters, second: numbers}
    out: [joined]
  nested:
    run: join.cwl
    scatter: [first, second]
    scatterMethod: nested_crossproduct
    in: {first: letters, second: numbers}
    out: [joined]
outputs:
  dot: {type: "File[]", outputSource: dot/joined}
  flat: {type: "File[]", outputSource: flat/joined}
  nested: {type: {type: array, items: {type: array, items: File}}, outputSource: nested/joined}
