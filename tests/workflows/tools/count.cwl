cwlVersion: v1.2
class: CommandLineTool
inputs:
  text: {type: File, inputBinding: {position: 1}}
baseCommand: [sh, -c, 'mkdir -p counts/deep && wc -l < "$0" > counts/lines && wc -c < "$0" > counts/deep/bytes && : > counts/empty']
outputs:
  counts: {type: Directory, outputBinding: {glob: counts}}
