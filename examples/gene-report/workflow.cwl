cwlVersion: v1.2
class: Workflow
label: Composition of gene sequences
doc: |
  Splits a FASTA file, counts the bases of each part side by side, joins the counts with a
  sample sheet and writes a report. Needs awk, sort and python3; no containers.

requirements:
  ScatterFeatureRequirement: {}

inputs:
  sequences:
    type: File
    doc: Gene sequences, FASTA.
  samples:
    type: File
    doc: Tab-separated, with a header; gene and group it belongs to.
  parts:
    type: int
    default: 3
    doc: Into how many files the sequences are split.
  with_chart:
    type: boolean
    default: true
    doc: Whether the lengths are drawn, too.

steps:
  split:
    run: tools/split.cwl
    in:
      sequences: sequences
      parts: parts
    out: [chunks]

  count:
    run: tools/count.cwl
    scatter: chunk
    in:
      chunk: split/chunks
    out: [counts]

  merge:
    run: tools/merge.cwl
    in:
      counts: count/counts
    out: [table]

  summarize:
    run: tools/report.cwl
    in:
      table: merge/table
      samples: samples
    out: [report, genes, gc_percent]

  draw:
    run: tools/chart.cwl
    when: $(inputs.with_chart)
    in:
      table: merge/table
      with_chart: with_chart
    out: [chart]

outputs:
  table:
    type: File
    outputSource: merge/table
  report:
    type: Directory
    outputSource: summarize/report
  chart:
    type: File?
    outputSource: draw/chart
  genes:
    type: int
    outputSource: summarize/genes
  gc_percent:
    type: float
    outputSource: summarize/gc_percent
