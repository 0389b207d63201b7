cwlVersion: v1.2
class: CommandLineTool
doc: A bar a gene, as long as the gene.

baseCommand: awk
arguments:
  - |
    { bar = ""; for (i = 0; i < $2 / 20; i++) bar = bar "#"; printf "%-8s %5d %s\n", $1, $2, bar }
inputs:
  table:
    type: File
    inputBinding: {position: 1}
stdout: lengths.txt
outputs:
  chart: stdout
