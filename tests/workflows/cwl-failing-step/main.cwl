cwlVersion: v1.2
class: Workflow
doc: One step of three fails; what comes after it is not run.
inputs: []
steps:
  good: {run: exit.cwl, in: {code: {default: 0}}, out: [done]}
  bad: {run: exit.cwl, in: {code: {default: 23}, after: good/done}, out: [done]}
  never: {run: exit.cwl, in: {code: {default: 0}, after: bad/done}, out: [done]}
outputs: {done: {type: File, outputSource: never/done}}
