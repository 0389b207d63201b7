cwlVersion: v1.2
class: CommandLineTool
doc: Outputs of more than one part of an upload, in one file and beside it.
inputs: {mebibytes: int}
baseCommand: [sh, -c, 'head -c "${0}M" /dev/zero > large; : > empty']
arguments: [$(inputs.mebibytes)]
outputs:
  large: {type: File, outputBinding: {glob: large}}
  empty: {type: File, outputBinding: {glob: empty}}
