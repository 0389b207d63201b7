cwlVersion: v1.2
class: CommandLineTool
doc: A report by group, as Markdown and JSON, and the figures of all genes together.

baseCommand: python3
inputs:
  program:
    type: File
    default: {class: File, location: ../scripts/report.py}
    inputBinding: {position: 1}
  table:
    type: File
    inputBinding: {position: 2}
  samples:
    type: File
    inputBinding: {position: 3}
outputs:
  # Read from the cwl.output.json that the program writes.
  report: Directory
  genes: int
  gc_percent: float
