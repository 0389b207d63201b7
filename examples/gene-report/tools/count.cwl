cwlVersion: v1.2
class: CommandLineTool
doc: One line a FASTA record with its name, its length and how often each base is in it.

baseCommand: [awk, -f]
inputs:
  program:
    type: File
    default: {class: File, location: ../scripts/count.awk}
    inputBinding: {position: 1}
  chunk:
    type: File
    inputBinding: {position: 2}
stdout: $(inputs.chunk.nameroot).tsv
outputs:
  counts: stdout
