cwlVersion: v1.2
class: Workflow
doc: A step that runs until its condition no longer holds, an extension that an option turns on.
$namespaces: {cwltool: "http://commonwl.org/cwltool#"}
requirements: {InlineJavascriptRequirement: {}}
inputs: {start: int}
steps:
  add:
    run:
      class: ExpressionTool
      inputs: {number: int}
      expression: '${ return {next: inputs.number + 3}; }'
      outputs: {next: int}
    in: {number: start}
    out: [next]
    requirements:
      cwltool:Loop:
        loopWhen: $(inputs.number < 10)
        loop: {number: next}
        outputMethod: all
outputs: {all: {type: "int[]", outputSource: add/next}}
