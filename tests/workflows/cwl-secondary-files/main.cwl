cwlVersion: v1.2
class: CommandLineTool
doc: Files with companions, by pattern, by expression, and one that may be missing; in and out.
requirements: {InlineJavascriptRequirement: {}}
inputs:
  reads:
    type: File
    secondaryFiles:
      - pattern: .bai
      - pattern: ^.dict
      - pattern: $(self.nameroot + '.by-expression')
      - {pattern: .missing, required: false}
    inputBinding: {position: 1}
baseCommand: [sh, -c, 'cat "$0" "$0".bai "${0%.bam}".dict "${0%.bam}".by-expression > out.txt; wc -c < out.txt | tr -d " " > out.txt.size; echo x > out.log']
outputs:
  out:
    type: File
    secondaryFiles: [.size, ^.log, {pattern: .none, required: false}]
    outputBinding: {glob: out.txt}
