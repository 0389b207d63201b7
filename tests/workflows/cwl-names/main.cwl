cwlVersion: v1.2
class: CommandLineTool
doc: Output files of the names that were asked for.
requirements: {InlineJavascriptRequirement: {}}
inputs:
  names: {type: "string[]", inputBinding: {}}
baseCommand: [sh, -c, 'mkdir out; for name; do printf "%s" "$name" > "out/$name"; done', made]
outputs: {out: {type: Directory, outputBinding: {glob: out}}}
