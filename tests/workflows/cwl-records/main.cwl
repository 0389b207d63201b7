cwlVersion: v1.2
class: CommandLineTool
doc: Records with files in them, enums, unions and optional values, of types that are imported.
requirements:
  InlineJavascriptRequirement: {}
  SchemaDefRequirement: {types: [{$import: types.yml}]}
inputs:
  sample: types.yml#sample
  either: [int, string]
  maybe: string?
baseCommand: [sh, -c, 'cat "$0" > made; echo "$1" >> made']
arguments: [$(inputs.sample.reads.path), $(inputs.sample.kind)]
outputs:
  made:
    type: {type: record, name: made, fields: {name: string, file: File, kinds: "string[]", either: [int, string], maybe: string?}}
    outputBinding:
      glob: made
      outputEval: |
        ${ return {name: inputs.sample.name, file: self[0], kinds: [inputs.sample.kind, inputs.sample.kind], either: inputs.either, maybe: inputs.maybe}; }
