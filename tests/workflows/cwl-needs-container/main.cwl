cwlVersion: v1.2
class: Workflow
doc: A step that names a container as a hint runs without one; one that requires it does not.
inputs: []
steps:
  hinted:
    run:
      class: CommandLineTool
      hints: {DockerRequirement: {dockerPull: example.org/nowhere}}
      inputs: []
      baseCommand: echo
      stdout: said
      outputs: {said: stdout}
    in: {}
    out: [said]
  required:
    run:
      class: CommandLineTool
      requirements: {DockerRequirement: {dockerPull: example.org/nowhere}}
      inputs: {after: File}
      baseCommand: echo
      outputs: []
    in: {after: hinted/said}
    out: []
outputs: []
