cwlVersion: v1.2
class: CommandLineTool
doc: Deals the records of a FASTA file out to a number of files, one after the other.

baseCommand: awk
arguments:
  - valueFrom: |
      /^>/ { name = sprintf("chunk-%02d.fasta", records++ % parts) }
      { print > name }
    position: 2
inputs:
  parts:
    type: int
    inputBinding: {prefix: -v, position: 1, valueFrom: "parts=$(self)"}
  sequences:
    type: File
    inputBinding: {position: 3}
outputs:
  chunks:
    type: File[]
    outputBinding: {glob: "chunk-*.fasta"}
