cwlVersion: v1.2
class: CommandLineTool
doc: Waits for a file of questions, then asks them of S3, with the credentials that AWS's SDK finds by itself.
requirements:
  InitialWorkDirRequirement:
    listing:
      - entryname: ask.py
        entry: {$include: ask.py}
inputs:
  python: string
  questions: string
  marker: string
baseCommand: []
arguments: [$(inputs.python), ask.py, $(inputs.questions), $(inputs.marker)]
stdout: answers.json
outputs:
  answers: stdout
