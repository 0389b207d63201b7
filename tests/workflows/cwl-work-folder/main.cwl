cwlVersion: v1.2
class: CommandLineTool
doc: Files made by the document itself, a shell's pipe, standard input, and the environment.
requirements:
  ShellCommandRequirement: {}
  EnvVarRequirement: {envDef: {GREETING: $(inputs.greeting)}}
  InitialWorkDirRequirement:
    listing:
      - entryname: conf/settings.ini
        entry: |
          greeting=$(inputs.greeting)
          size=$(inputs.text.size)
      - {entry: $(inputs.text), entryname: renamed.txt, writable: true}
inputs: {text: File, greeting: string}
arguments:
  - {valueFrom: 'tr a-z A-Z | cat conf/settings.ini - > all.txt; echo "$GREETING" >> renamed.txt; echo told >&2', shellQuote: false}
stdin: $(inputs.text.path)
stderr: errors.txt
outputs:
  all: {type: File, outputBinding: {glob: all.txt}}
  changed: {type: File, outputBinding: {glob: renamed.txt}}
  errors: stderr
