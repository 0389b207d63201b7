cwlVersion: v1.2
class: Workflow
doc: A folder goes in, is changed in a copy, and comes out with folders in it, an empty one too.
inputs: {tree: Directory}
steps:
  change:
    in: {tree: tree}
    out: [changed]
    run:
      class: CommandLineTool
      requirements:
        InitialWorkDirRequirement:
          listing: [{entry: $(inputs.tree), entryname: changed, writable: true}]
      inputs: {tree: Directory}
      baseCommand: [sh, -c, 'mkdir -p changed/empty changed/sub-folder/deep; mv changed/one.txt changed/sub-folder/deep/; echo new > changed/new.txt']
      outputs: {changed: {type: Directory, outputBinding: {glob: changed}}}
  list:
    in: {tree: change/changed}
    out: [names]
    run:
      class: CommandLineTool
      inputs: {tree: {type: Directory, inputBinding: {}}}
      baseCommand: [sh, -c, 'cd "$0" && find . -type f | LC_ALL=C sort']
      stdout: names.txt
      outputs: {names: stdout}
outputs:
  tree: {type: Directory, outputSource: change/changed}
  names: {type: File, outputSource: list/names}
