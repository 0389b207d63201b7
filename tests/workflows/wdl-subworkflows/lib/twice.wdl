version 1.0

import "../tasks/tasks.wdl" as tasks

workflow twice {
  input { File text }
  call tasks.double { input: text = text }
  output { File doubled = double.doubled  Int bytes = double.bytes }
}
