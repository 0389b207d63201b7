cwlVersion: v1.2
class: CommandLineTool
doc: Joins the counts of all parts into one table, sorted by gene.

baseCommand: [sort, "-k1,1"]
inputs:
  counts:
    type: File[]
    inputBinding: {position: 1}
requirements:
  EnvVarRequirement:
    envDef: {LC_ALL: C}
stdout: counts.tsv
outputs:
  table: stdout
