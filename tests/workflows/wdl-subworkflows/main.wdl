version 1.0

import "lib/twice.wdl" as lib

# A workflow of another document, called twice, which calls a task of a third.
workflow w {
  input { File text }
  call lib.twice { input: text = text }
  call lib.twice as again { input: text = twice.doubled }
  output { File doubled = again.doubled  Int bytes = again.bytes }
}
