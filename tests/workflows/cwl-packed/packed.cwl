cwlVersion: v1.2
$graph:
  - id: main
    class: Workflow
    inputs: {text: string}
    steps:
      said: {run: '#say', in: {text: text}, out: [said]}
    outputs: {said: {type: File, outputSource: said/said}}
  - id: say
    class: CommandLineTool
    inputs: {text: {type: string, inputBinding: {}}}
    baseCommand: echo
    stdout: said.txt
    outputs: {said: stdout}
  - id: other
    class: CommandLineTool
    doc: Not asked for.
    inputs: []
    baseCommand: 'false'
    outputs: []
